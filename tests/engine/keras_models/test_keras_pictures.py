"""Pictures through Keras's preprocessing and model, and through ours: at sizes of which halves are odd."""

from __future__ import annotations

from pathlib import Path

import pytest
from timm.layers import DropPath

from classification.model.build import build_model
from classification.model.sections import KerasModel
from engine.config.training import FinetuneConfig
from engine.keras_models.build import ARCHITECTURES, build_keras
from tests.engine.keras_models.random_keras import NEAR, differences, ours, pictures, prepared, random_keras

SIZES = [(95, 96), (97, 131), (224, 224), (299, 299)]
CASES = [
    pytest.param(name, size, marks=[] if "Mobile" in name and size == (95, 96) else pytest.mark.full)
    for name in ARCHITECTURES
    for size in SIZES
]


@pytest.mark.parametrize(("name", "size"), CASES)
def test_pictures_say_what_keras_says_of_them(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    """Channels in another order would say something else, and so would padding at another side."""
    theirs = random_keras(name, 5, *size)
    theirs.save(tmp_path / "model.h5")
    given = pictures(3, *size, seed=1)
    wanted = theirs(prepared(name, given), training=False).detach().numpy()
    model = build_model(KerasModel(name=name), FinetuneConfig(weights=tmp_path / "model.h5"), 5, size).eval()  # type: ignore[arg-type]
    assert differences(ours(model, name, given), wanted).max() <= NEAR
    assert differences(ours(model, name, given[..., ::-1]), wanted).min() > 1e-2, "it sees colours"
    assert differences(ours(model, name, given[:, ::-1, ::-1]), wanted).min() > 1e-3, "it sees sides"


def test_blocks_of_an_efficientnet_are_dropped_as_often_as_keras_drops_them() -> None:
    """Rates that grow with a block's number of 16, where a block has a way around it."""
    model = build_keras("keras/EfficientNetB0", 3, 0.2, 0.2)
    blocks = [block for stage in model.blocks for block in stage]  # type: ignore[attr-defined,union-attr]
    rates = [block.drop_path.drop_prob if isinstance(block.drop_path, DropPath) else 0.0 for block in blocks]
    assert len(rates) == 16
    around = [number for number, block in enumerate(blocks) if block.has_skip]
    assert [rates[number] for number in around] == pytest.approx([0.2 * number / 16 for number in around])
    assert model.drop_rate == 0.2
