"""Shapes: derived values, hints and refusals."""

from __future__ import annotations

from typing import Any

import pytest

from swin import SwinConfig, swin_tiny


def test_defaults_are_swin_tiny() -> None:
    config = SwinConfig()
    assert config.dims == (96, 192, 384, 768)
    assert config.strides == (4, 8, 16, 32)
    assert config.windows == ((7, 7),) * 4


def test_drop_path_grows_linearly_over_the_whole_depth() -> None:
    rates = [rate for stage in SwinConfig(depths=(2, 2), num_heads=(3, 6), drop_path=0.3).drop_paths for rate in stage]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert SwinConfig(depths=(1,), num_heads=(3,), drop_path=0.3).drop_paths == ((0.0,),)


def test_windows_shrink_to_the_maps_of_the_hinted_size() -> None:
    assert SwinConfig(img_size=224).windows == ((7, 7),) * 4
    assert SwinConfig(img_size=64).windows == ((7, 7), (7, 7), (4, 4), (2, 2))
    assert SwinConfig(img_size=(96, 240), window_size=8).windows == ((8, 8), (8, 8), (6, 8), (3, 8))
    assert SwinConfig(window_size=12).windows == ((12, 12),) * 4


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"depths": (2, 2), "num_heads": (3,)}, "num_heads"),
        ({"depths": ()}, "depths"),
        ({"depths": (2, 0, 6, 2)}, "depths"),
        ({"embed_dim": 100}, "embed_dim"),
        ({"window_size": 0}, "window_size"),
        ({"drop_path": 1.0}, "drop_path"),
        ({"attn_drop": -0.1}, "attn_drop"),
        ({"num_classes": -1}, "num_classes"),
        ({"mlp_ratio": 0.0}, "mlp_ratio"),
        ({"img_size": 3}, "img_size"),
    ],
)
def test_impossible_values_are_refused_by_name(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SwinConfig(**fields)


def test_unknown_fields_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match="windowsize"):
        swin_tiny(windowsize=7)
    with pytest.raises(ValueError, match="features_only"):
        swin_tiny(out_indices=(0, 1))
