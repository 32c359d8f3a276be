"""Heads of one's own: what they compute, where they fit, and which weights they take."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from classification.model.build import build_model
from classification.model.heads import HiddenHead, replace_head
from classification.model.sections import HeadConfig, ModelConfig
from engine.config.training import FinetuneConfig
from engine.errors import UserError
from tests.sections import section

HEAD = {"hidden": 16, "dropout": 0.5, "batch_norm": True, "hidden_dropout": 0.25}
TIMM = {"name": "timm/test_byobnet"}
SWIN = {"name": "swin", "patch_size": 2, "window_size": 4, "embed_dim": 12, "depths": [2, 2], "num_heads": [2, 2]}
BACKBONES = pytest.mark.parametrize("backbone", [TIMM, SWIN], ids=["timm", "swin"])


def build(
    backbone: dict[str, Any],
    head: dict[str, Any] | None,
    classes: int = 5,
    weights: Path | None = None,
    names: list[str] | None = None,
) -> Any:
    config = section(
        ModelConfig, **{**backbone, "depths": (2, 2), "num_heads": (2, 2)} if backbone is SWIN else {**backbone}
    )
    config = config.model_copy(update={"head": None if head is None else HeadConfig(**head)})
    return build_model(config, FinetuneConfig(weights=weights), classes, (32, 32), names)


def saved(model: nn.Module, folder: Path) -> Path:
    with torch.no_grad():
        for tensor in model.state_dict().values():  # trained weights are no initial ones, statistics among them
            tensor.add_(torch.rand_like(tensor) if tensor.is_floating_point() else 3)
    torch.save({"model": model.state_dict(), "ema": None}, folder / "weights.pt")
    return folder / "weights.pt"


def agreement(model: nn.Module, path: Path) -> tuple[set[str], set[str]]:
    """The model's keys that hold what the file has under them, and the others."""
    state = torch.load(path, weights_only=True)["model"]
    own = model.state_dict()
    equal = {key for key in own if key in state and torch.equal(own[key], state[key])}
    return equal, set(own) - equal


def test_it_computes_what_its_layers_say() -> None:
    torch.manual_seed(0)
    head = HiddenHead(6, HeadConfig(**HEAD), 3)
    layers = nn.Sequential(
        nn.Dropout(0.5), head.hidden, nn.ReLU(), nn.BatchNorm1d(16), nn.Dropout(0.25), head.classifier
    )
    x = torch.randn(8, 6)
    for mode in (True, False):
        outputs = []
        for module in (head, layers):
            torch.manual_seed(1)
            outputs.append(module.train(mode)(x))
        assert torch.equal(*outputs)
    plain = HiddenHead(6, HeadConfig(hidden=4, activation="gelu"), 3)
    expected = plain.classifier(nn.functional.gelu(plain.hidden(x)))
    assert torch.equal(plain(x), expected)
    assert plain.classifier.bias.eq(0).all() and plain.classifier.weight.std() < 0.02


@BACKBONES
def test_it_takes_the_place_of_the_classifier(backbone: dict[str, Any]) -> None:
    model = build(backbone, HEAD)
    assert isinstance(model.get_classifier(), HiddenHead)
    output = model(torch.randn(2, 3, 32, 32))
    assert output.shape == (2, 5)
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in model.get_classifier().parameters())


@BACKBONES
def test_our_own_checkpoint_with_such_a_head_loads_exactly(backbone: dict[str, Any], tmp_path: Path) -> None:
    path = saved(build(backbone, HEAD), tmp_path)
    equal, others = agreement(build(backbone, HEAD, weights=path), path)
    assert equal and not others


@BACKBONES
@pytest.mark.parametrize(
    ("theirs", "ours", "classes"),
    [
        (None, HEAD, 5),
        (HEAD, None, 5),
        (HEAD, {**HEAD, "hidden": 8}, 5),
        (HEAD, HEAD, 7),
        ({"hidden": 16}, HEAD, 5),
    ],
    ids=["new head", "head given up", "other width", "other classes", "other layers"],
)
def test_another_head_starts_anew_and_says_so(
    backbone: dict[str, Any], theirs: Any, ours: Any, classes: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(build(backbone, theirs), tmp_path)
    with caplog.at_level(logging.INFO):
        model = build(backbone, ours, classes, weights=path)
    equal, others = agreement(model, path)
    prefix = "head.fc." if backbone is TIMM else "head."
    assert others and all(key.startswith(prefix) for key in others)
    assert {key for key in equal if key.startswith(prefix)} <= {f"{prefix}norm.bias"}
    assert {key for key in model.state_dict() if not key.startswith(prefix)} <= equal
    assert any("anew" in message for message in caplog.messages)


@BACKBONES
@pytest.mark.parametrize("head", [None, HEAD], ids=["plain", "layers"])
@pytest.mark.parametrize(
    ("names", "kept"), [("abcde", True), ("abcdf", False), ("bacde", False)], ids=["same", "others", "another order"]
)
def test_a_head_for_other_classes_starts_anew_though_it_would_fit(
    backbone: dict[str, Any], head: Any, names: str, kept: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(build(backbone, head), tmp_path)
    torch.save({**torch.load(path, weights_only=True), "metadata": {"classes": list("abcde")}}, path)
    with caplog.at_level(logging.INFO):
        model = build(backbone, head, 5, path, list(names))
    equal, others = agreement(model, path)
    prefix = "head.fc." if backbone is TIMM else "head."
    assert {key for key in model.state_dict() if not key.startswith(prefix)} <= equal
    assert bool(others) is not kept
    said = "weights.pt was trained on other classes, or in another order (a, b, c, d, e there, "
    assert any(said in message for message in caplog.messages) is not kept


@BACKBONES
def test_a_body_that_does_not_fit_is_refused_with_such_a_head_too(backbone: dict[str, Any], tmp_path: Path) -> None:
    path = saved(build(backbone, None), tmp_path)
    state = torch.load(path, weights_only=True)["model"]
    name = next(iter(state))
    torch.save({**{key: value for key, value in state.items() if key != name}, "other": torch.ones(1)}, path)
    with pytest.raises(UserError, match=rf"(?s)1 missing: {name}.*1 surplus: other"):
        build(backbone, HEAD, weights=path)


def test_models_that_end_in_something_else_are_refused() -> None:
    with torch.device("meta"):
        distilled = timm.create_model("deit_tiny_distilled_patch16_224")
        headless = timm.create_model("test_byobnet", num_classes=0)
    for model in (distilled, headless):
        with pytest.raises(UserError, match=r"model\.head: \w+ does not end in one linear layer"):
            replace_head(model, HeadConfig(hidden=4))


def test_one_dropout_for_the_features() -> None:
    with pytest.raises(ValueError, match=r"give `head\.dropout` or `drop_rate`, not both"):
        section(ModelConfig, name="swin_tiny", drop_rate=0.1, head=HeadConfig(hidden=4, dropout=0.2))
