"""Weights to start from: classifiers of ours and of timm, other detectors, and what does not fit."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

from detection.model.sections import DetectorConfig
from detection.model.ssd import SSD, build_detector
from engine.config.training import FinetuneConfig
from engine.errors import UserError
from swin import SwinConfig, SwinTransformer
from tests.classification.test_pretrained import NAME as PUBLISHED
from tests.classification.test_pretrained import keep
from tests.detection.model.test_backbones import TINY_SWIN
from tests.sections import section

LITE = Path(__file__).resolve().parents[3] / ".." / "shared" / "weights" / "tf_efficientnet_lite0.safetensors"
RENAMING = "test_convnext"
"""A model whose stages timm renames, to `stages_0`, where it gives feature maps."""


def detector(
    backbone: str,
    weights: Literal["timm"] | Path | None = None,
    outputs: int = 4,
    classes: list[str] | None = None,
    **fields: Any,
) -> SSD:
    if backbone.startswith("swin"):
        fields.setdefault("swin", TINY_SWIN)
    channels = {"neck_channels": 8} if "neck" in fields else {}
    config = section(DetectorConfig, **{"backbone": backbone, **channels, **fields})
    return build_detector(config, FinetuneConfig(weights=weights), outputs, (64, 64), classes=classes)


def spread(model: nn.Module) -> nn.Module:
    """Parameters and statistics away from where any of them starts."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.05 * torch.rand_like(tensor))
    return model


def saved(model: nn.Module, path: Path, **entries: Any) -> Path:
    """A checkpoint as our runs write them."""
    torch.save({"format": 1, "model": model.state_dict(), "ema": None, "optimizer": {}, **entries}, path)
    return path


@pytest.mark.parametrize(
    ("backbone", "names"),
    [
        ("swin_a", ["layers.2.downsample.reduction.weight", "layers.2.blocks.0.attn.qkv.weight"]),
        ("swin_b", ["layers.1.downsample.reduction.weight", "layers.2.blocks.0.attn.qkv.weight"]),
        ("swin_tiny", ["layers.2.downsample.reduction.weight", "layers.3.blocks.0.mlp.fc2.bias"]),
    ],
)
def test_a_swin_classifier_of_ours(backbone: str, names: list[str], tmp_path: Path) -> None:
    classifier = spread(SwinTransformer(SwinConfig(**TINY_SWIN, num_classes=7)))
    model = detector(backbone, saved(classifier, tmp_path / "best.pt"))
    theirs, ours = classifier.state_dict(), model.backbone.body.state_dict()
    assert set(names) <= set(ours)
    for name, value in ours.items():
        if name in theirs:
            assert torch.equal(value, theirs[name]), name
        elif name == "norm3.weight":
            assert torch.equal(value, theirs["norm.weight"])
        else:
            assert name.startswith("norm")


def test_the_moving_average_of_a_run_is_preferred(tmp_path: Path) -> None:
    classifier, average = (spread(timm.create_model(RENAMING, num_classes=7)) for _ in range(2))
    model = detector(f"timm/{RENAMING}", saved(classifier, tmp_path / "best.pt", ema=average.state_dict()))
    assert torch.equal(model.backbone.body["stem_0"].weight, average.state_dict()["stem.0.weight"])


@pytest.mark.parametrize("name", [RENAMING, "test_byobnet", "test_efficientnet", "tiny_vit_5m_224", "xception41"])
def test_a_timm_classifier_whatever_timm_renames(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    classifier = spread(timm.create_model(name, num_classes=7))
    with caplog.at_level(logging.INFO, "detection"):
        model = detector(f"timm/{name}", saved(classifier, tmp_path / "best.pt"))
    fresh = detector(f"timm/{name}").backbone.body.state_dict()
    total = sum(value.double().sum() for value in fresh.values())
    ours = model.backbone.body.state_dict()
    assert ours.keys() == fresh.keys() and sum(value.double().sum() for value in ours.values()) != total
    for name, value in model.backbone.body.named_parameters():
        assert not torch.equal(value, fresh[name]), name
    (message,) = caplog.messages
    assert message.startswith("best.pt: ignored, not in the backbone: ")


@pytest.mark.parametrize("frozen", [False, True])
def test_maps_are_those_of_the_classifier(frozen: bool, tmp_path: Path) -> None:
    """Normalised by trained statistics, frozen or not."""
    torch.manual_seed(0)
    classifier = spread(timm.create_model("resnet18", num_classes=7)).eval()
    path = saved(classifier, tmp_path / "best.pt")
    model = detector("timm/resnet18", path, frozen_batchnorm=frozen).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.backbone.body(x)[2], classifier.forward_features(x), rtol=1e-4, atol=1e-4)
        if frozen:
            torch.testing.assert_close(
                model.train().backbone.body(x)[2], classifier.forward_features(x), rtol=1e-4, atol=1e-4
            )


def test_half_precision_weights_of_timm(tmp_path: Path) -> None:
    classifier = spread(timm.create_model("resnet50", num_classes=3)).half()
    save_file(classifier.state_dict(), tmp_path / "resnet50.safetensors")
    for backbone in ("resnet50_a", "resnet50_b"):
        model = detector(backbone, tmp_path / "resnet50.safetensors")
        weight = model.backbone.body["layer3"][5].conv3.weight
        assert weight.dtype == torch.float32
        assert torch.equal(weight, classifier.layer3[5].conv3.weight.float())


def test_weights_that_timm_publishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    published = spread(timm.create_model(PUBLISHED.partition(".")[0]))
    keep(tmp_path, published.state_dict())
    model = detector(f"timm/{PUBLISHED}", "timm")
    ours, theirs = model.backbone.body.state_dict(), published.state_dict()
    body = {name.replace("stages_", "stages.", 1): value for name, value in ours.items()}
    assert body.keys() <= theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in body.items())


def test_weights_that_lie_beside_the_project(caplog: pytest.LogCaptureFixture) -> None:
    if not LITE.exists():
        pytest.skip("no pretrained weights beside this checkout")
    with caplog.at_level(logging.INFO, "detection"):
        model = detector("timm/tf_efficientnet_lite0", LITE)
    classifier = timm.create_model("tf_efficientnet_lite0")
    timm.models.load_checkpoint(classifier, str(LITE))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps = model.eval().backbone.body(x)
        expected = classifier.eval().forward_intermediates(x, intermediates_only=True)
    for ours, theirs in zip(maps, expected[-3:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert caplog.messages == [
        "tf_efficientnet_lite0.safetensors: ignored, not in the backbone: "
        "bn2.bias, bn2.running_mean, bn2.running_var, bn2.weight and 3 more"
    ]


# -- other detectors -------------------------------------------------------------------------------------------------


def test_a_detector_of_the_same_classes_is_loaded_whole(tmp_path: Path) -> None:
    source = spread(detector("timm/test_byobnet", neck="pan"))
    model = detector("timm/test_byobnet", saved(source, tmp_path / "best.pt"), neck="pan")
    for name, value in model.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name


@pytest.mark.parametrize("frozen", [False, True])
def test_a_detector_of_other_classes_keeps_all_but_its_class_convolutions(
    frozen: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = spread(detector("timm/test_byobnet", outputs=9))
    with caplog.at_level(logging.INFO, "detection"):
        model = detector("timm/test_byobnet", saved(source, tmp_path / "best.pt"), frozen_batchnorm=frozen)
    for name, value in model.state_dict().items():
        if name.startswith("head.classes."):
            assert name.endswith("weight") or value.eq(0).all()
        else:
            assert torch.equal(value, source.state_dict()[name]), name
    assert caplog.messages == ["best.pt has other classes, or in another order: the class convolutions start anew"]


@pytest.mark.parametrize(
    ("theirs", "kept"),
    [
        (["ant", "bee", "cat"], True),
        (None, True),  # a file that does not say
        (["ant", "bee", "cow"], False),
        (["bee", "ant", "cat"], False),
    ],
)
def test_class_convolutions_are_kept_for_the_same_classes_in_the_same_order(
    theirs: list[str] | None, kept: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, entries = spread(detector("timm/test_byobnet")), {"metadata": {"classes": theirs}} if theirs else {}
    path = saved(source, tmp_path / "best.pt", **entries)
    with caplog.at_level(logging.INFO, "detection"):
        model = detector("timm/test_byobnet", path, classes=["ant", "bee", "cat"])
    for name, value in model.state_dict().items():
        taken = torch.equal(value, source.state_dict()[name])
        assert taken == (kept or not name.startswith("head.classes.")), name
    assert ("the class convolutions start anew" in caplog.text) == (not kept)


def test_a_detector_with_another_neck_is_refused(tmp_path: Path) -> None:
    path = saved(detector("timm/test_byobnet", neck="fpn"), tmp_path / "best.pt")
    with pytest.raises(
        UserError, match=r"finetune\.weights: best\.pt does not fit this detector: (.|\n)*neck\.lateral"
    ):
        detector("timm/test_byobnet", path)


# -- what does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "text"),
    [
        ("timm/test_byobnet", r"best\.pt does not fit the backbone: \d+ of its \d+ tensors fit\n  \d+ missing: stem"),
        ("swin_a", "the weights do not fit this model"),
        ("resnet50_a", r"does not fit the backbone: .*\n  \d+ missing: conv1\.weight"),
    ],
)
def test_another_models_weights_are_refused(backbone: str, text: str, tmp_path: Path) -> None:
    path = saved(timm.create_model("test_efficientnet", num_classes=2), tmp_path / "best.pt")
    with pytest.raises(UserError, match=rf"^finetune\.weights: .*{text}"):
        detector(backbone, path)


def test_other_widths_are_refused(tmp_path: Path) -> None:
    path = saved(timm.create_model("resnet34", num_classes=2), tmp_path / "best.pt")
    with pytest.raises(UserError, match=r"\d+ missing: (.|\n)*of another shape: layer1\.0\.conv1\.weight"):
        detector("resnet50_a", path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"finetune\.weights: no file {tmp_path / 'none.pt'}"):
        detector("swin_a", tmp_path / "none.pt")
