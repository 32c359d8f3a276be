"""The configured network and the weights it starts from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion.model.build import CLASSES, build_network
from diffusion.model.swin_unet import SwinUNet
from engine.config.training import FinetuneConfig
from engine.errors import UserError
from engine.model.stages import stages
from swin import SwinConfig, SwinTransformer
from tests.diffusion.small import config_of

NAMES = ["a", "b", "c"]


def build(
    weights: Path | None = None, size: tuple[int, int] = (8, 8), classes: list[str] = NAMES, **model: Any
) -> SwinUNet:
    config = config_of(model=model).model
    return build_network(config, FinetuneConfig(weights=weights), size, 1, classes)


@pytest.mark.parametrize(("name", "millions"), [("swin_unet_tiny", 5), ("swin_unet_small", 17), ("swin_unet_base", 45)])
def test_presets(name: str, millions: int) -> None:
    with torch.device("meta"):
        model = build_network(config_of(model={"name": name}).model, FinetuneConfig(), (32, 32), 3, [])
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=1)


def test_padding_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        model = build(size=(9, 8))
    assert "images of 9 x 8 are padded to 10 x 8, whole patches of 2" in caplog.text
    assert model(torch.zeros(1, 1, 9, 8), torch.zeros(1), torch.zeros(1, dtype=torch.int64)).shape == (1, 1, 9, 8)


def test_too_many_parameters_are_refused() -> None:
    with pytest.raises(UserError, match=r"model\.max_parameters: swin_unet has [0-9,]+ parameters, more than 10"):
        build(max_parameters=10)


def test_a_classifier_gives_its_encoder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shape = SwinConfig(
        num_classes=5,
        img_size=8,
        patch_size=2,
        in_chans=1,
        embed_dim=12,
        depths=(1, 1),
        num_heads=(2, 2),
        window_size=2,
    )
    classifier = SwinTransformer(shape)
    torch.save(classifier.state_dict(), tmp_path / "weights.pt")
    with caplog.at_level(logging.INFO):
        model = build(tmp_path / "weights.pt")
    assert "weights.pt is no diffusion, and gives the way down alone: positions, what" in caplog.text
    assert torch.equal(model.layers[1].blocks[0].mlp.fc1.weight, classifier.layers[1].blocks[0].mlp.fc1.weight)
    wide = SwinTransformer(SwinConfig(**{**vars(shape), "in_chans": 3}))
    torch.save(wide.state_dict(), tmp_path / "colour.pt")
    with pytest.raises(UserError, match=r"(?s)finetune\.weights: .*colour\.pt: .*patch_embed"):
        build(tmp_path / "colour.pt")


def test_another_diffusion_gives_all_but_other_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    first = build()
    saved = {"model": first.state_dict(), "ema": None, "metadata": {"classes": NAMES}}
    torch.save({key: value for key, value in saved.items() if value is not None}, tmp_path / "first.pt")
    assert torch.equal(build(tmp_path / "first.pt").get_parameter(CLASSES), first.get_parameter(CLASSES))
    with caplog.at_level(logging.INFO):
        other = build(tmp_path / "first.pt", classes=["c", "d", "e", "f"])
    assert "starts anew" in caplog.text and len(other.get_parameter(CLASSES)) == 5
    assert torch.equal(other.pos_embed, first.pos_embed)
    with caplog.at_level(logging.INFO):
        untold = build(tmp_path / "first.pt", classes=[])
    assert "this network is told none" in caplog.text
    assert torch.equal(untold.pos_embed, first.pos_embed)
    with pytest.raises(UserError, match=r"(?s)does not fit this network: .*of another shape"):
        build(tmp_path / "first.pt", embed_dim=24)


def test_another_diffusion_of_other_sizes_is_interpolated(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    first = build()
    torch.save({"model": first.state_dict(), "metadata": {"classes": NAMES}}, tmp_path / "first.pt")
    with caplog.at_level(logging.INFO):
        wide = build(tmp_path / "first.pt", size=(8, 12), window_size=4)
    assert "first.pt has positions of 4 x 4 patches, interpolated to 4 x 6" in caplog.text
    assert "first.pt has another window: 3 bias tables are interpolated" in caplog.text
    assert torch.equal(wide.pos_embed, first.positions(4, 6)) and wide.pos_embed.is_leaf
    assert torch.equal(wide.head.weight, first.head.weight)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        build(tmp_path / "first.pt")
    assert "interpolated" not in caplog.text


def test_the_way_down_has_stages_and_all_else_is_the_head() -> None:
    found = stages(build())
    assert list(found) == ["stem", "stage_1", "stage_2", "head"]
    assert all(name.startswith(("patch_embed", "pos_embed")) for name in found["stem"])
    assert any(name.startswith("up_layers") for name in found["head"])
