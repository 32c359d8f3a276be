"""Backbones: channels and sizes of their maps for images of any size, and what each is known for."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from detection.model.backbone import build_backbone
from detection.model.backbone_base import Backbone, ExtraMaps
from detection.model.layers import BatchNorm
from detection.model.sections import DetectorConfig
from detection.model.swin_backbone import SwinB, whole_patches
from engine.errors import UserError
from swin import SwinConfig, SwinFeatures
from tests.sections import section

TINY_SWIN: dict[str, Any] = {"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 2), "window_size": 3}


def build(name: str, size: tuple[int, int] = (96, 96), **fields: Any) -> Backbone:
    return build_backbone(section(DetectorConfig, backbone=name, **fields), size)


def shapes(name: str, size: tuple[int, int]) -> list[tuple[int, int, int]]:
    """Of the maps, found without computing them."""
    with torch.device("meta"):
        backbone = build(name, size)
        maps = backbone(torch.empty(2, 3, *size))
    assert tuple(y.shape[1] for y in maps) == backbone.channels
    return [(y.shape[1], y.shape[2], y.shape[3]) for y in maps]


A, B = (512, 1024, 2048, 512, 256, 256), (1024, 512, 512, 256, 256, 256)
SWIN_A, SWIN_B = (192, 384, 768, 512, 256, 256), (192, 512, 512, 256, 256, 256)


@pytest.mark.parametrize(
    ("name", "size", "channels", "sides"),
    [
        ("resnet50_a", 300, A, (38, 19, 10, 5, 3, 1)),
        ("resnet50_b", 300, B, (38, 19, 10, 5, 3, 1)),
        ("resnet50_b", 512, B, (64, 32, 16, 8, 4, 1)),
        ("swin_a", 336, SWIN_A, (42, 21, 11, 6, 3, 1)),
        ("swin_b", 336, SWIN_B, (42, 21, 11, 6, 3, 1)),
        ("swin_tiny", 336, SWIN_A, (42, 21, 11, 6, 3, 1)),
        ("swin_base_a", 336, (256, 512, 1024, 512, 256, 256), (42, 21, 11, 6, 3, 1)),
        ("swin_large_b", 300, (384, 512, 512, 256, 256, 256), (38, 19, 10, 5, 3, 1)),
        ("timm/tf_efficientnet_lite0", 320, (40, 112, 320, 512, 256, 256), (40, 20, 10, 5, 3, 1)),
        ("timm/swin_tiny_patch4_window7_224", 336, SWIN_A, (42, 21, 11, 6, 3, 1)),
        ("timm/inception_v3", 299, (288, 768, 2048, 512, 256, 256), (35, 17, 8, 4, 2, 1)),
    ],
)
def test_channels_and_sizes(name: str, size: int, channels: tuple[int, ...], sides: tuple[int, ...]) -> None:
    assert shapes(name, (size, size)) == [(c, s, s) for c, s in zip(channels, sides, strict=True)]


@pytest.mark.parametrize("name", ["resnet50_a", "resnet50_b", "swin_a", "swin_b", "swin_tiny", "timm/resnet18"])
@pytest.mark.parametrize("size", [(300, 533), (32, 97)])
def test_images_that_are_not_square(name: str, size: tuple[int, int]) -> None:
    found = shapes(name, size)
    rows, columns = (-(-side // 8) for side in size)
    assert found[0][1:] == (rows, columns)
    for (_, *before), (_, *after) in pairwise(found[:5]):
        assert after == [-(-side // 2) for side in before]
    assert found[5][1:] == tuple(max((side - 1) // 2, 1) for side in found[4][1:])


def test_parameters_are_as_many_as_published() -> None:
    """Of 25,557,032, ResNet-50's classifier has 2,049,000 and its last stage 14,964,736."""
    counts = {}
    with torch.device("meta"):
        for name in ("resnet50_a", "resnet50_b", "swin_a", "swin_b", "swin_tiny"):
            counts[name] = sum(p.numel() for p in build(name).body.parameters())
    assert counts["resnet50_a"] == 25_557_032 - 2_049_000
    assert counts["resnet50_b"] == 25_557_032 - 2_049_000 - 14_964_736
    classifier, last_stage = 28_288_354 - 769_000 - 2 * 768, 2 * 7_091_928
    assert counts["swin_a"] == classifier - last_stage
    assert counts["swin_b"] == classifier - last_stage - 4 * 384 * (2 * 384 + 2) + 2 * 384
    assert counts["swin_tiny"] == classifier + 2 * (192 + 384 + 768)


# -- ResNet-50 -------------------------------------------------------------------------------------------------------


def test_resnet50_is_torchvisions_and_its_first_map_is_normalised() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(weights=None).eval()
    backbone = build("resnet50_a").eval()
    backbone.body.load_state_dict(theirs.state_dict(), strict=False)
    nodes = {"layer2": "0", "layer3": "1", "layer4": "2"}
    x = torch.randn(1, 3, 70, 64)
    with torch.no_grad():
        ours, expected = backbone(x)[:3], create_feature_extractor(theirs, nodes)(x)
    normalised = 20 * expected["0"] / expected["0"].norm(dim=1, keepdim=True)
    torch.testing.assert_close(ours[0], normalised, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours[1], expected["1"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours[2], expected["2"], rtol=1e-3, atol=1e-4)


def test_the_third_stage_of_resnet50_b_does_not_halve() -> None:
    strides = {
        name: module.stride
        for name, module in build("resnet50_b").body.named_modules()
        if isinstance(module, nn.Conv2d) and module.stride != (1, 1)
    }
    assert set(strides) == {"conv1", "layer2.0.conv2", "layer2.0.downsample.0"}
    assert not any(
        isinstance(module, nn.Conv2d) and module.dilation != (1, 1) for module in build("resnet50_b").modules()
    )


# -- Swin ------------------------------------------------------------------------------------------------------------


def same_weights(backbone: Backbone, others: SwinFeatures) -> SwinFeatures:
    others.load_state_dict(backbone.body.state_dict(), strict=False)
    return others.eval()


def test_swin_a_takes_what_each_stage_passes_on() -> None:
    backbone = build("swin_a", swin=TINY_SWIN).eval()
    whole = same_weights(backbone, SwinFeatures(SwinConfig(**TINY_SWIN)))
    x = torch.randn(2, 3, 64, 40)
    inputs: list[Tensor] = []
    for layer in list(whole.layers)[1:]:
        layer.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    whole(x)
    for ours, theirs in zip(backbone(x), inputs, strict=False):
        assert torch.equal(ours, theirs.permute(0, 3, 1, 2))
    assert len(inputs) == 3 and not any("layers.3" in name for name in backbone.state_dict())


def test_swin_b_expands_the_third_stages_map() -> None:
    backbone = build("swin_b", swin=TINY_SWIN).eval()
    assert isinstance(backbone, SwinB)
    third = same_weights(backbone, SwinFeatures(SwinConfig(**TINY_SWIN), (2,)))
    x = torch.randn(2, 3, 64, 32)
    (coarse,) = third(x)
    fine = backbone(x)[0]
    assert coarse.shape == (2, 48, 4, 2) and fine.shape == (2, 24, 8, 4)
    neighbours = backbone.expand.expand(coarse[0, :, 3, 1]).view(4, 24)
    expected = backbone.expand.norm(neighbours)
    torch.testing.assert_close(fine[0, :, 6:8, 2:4].permute(1, 2, 0).reshape(4, 24), expected)


def test_swin_pyramid_is_the_swin_packages() -> None:
    backbone = build("swin_tiny", swin=TINY_SWIN).eval()
    features = same_weights(backbone, SwinFeatures(SwinConfig(**TINY_SWIN), (1, 2, 3)))
    x = torch.randn(1, 3, 64, 64)
    for ours, theirs in zip(backbone(x)[:3], features(x), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["swin_a", "swin_b", "swin_tiny"])
def test_images_are_padded_to_whole_patches(name: str) -> None:
    backbone = build(name, swin=TINY_SWIN).eval()
    x = torch.randn(1, 3, 41, 50)
    padded = torch.zeros(1, 3, 44, 52)
    padded[:, :, :41, :50] = x
    assert torch.equal(whole_patches(x, 4), padded)
    for ours, expected in zip(backbone(x), backbone(padded), strict=True):
        assert torch.equal(ours, expected)


def test_drop_path_reaches_the_body() -> None:
    assert build("swin_b", swin=TINY_SWIN, drop_path=0.3).body.config.drop_path == 0.3
    body = build("timm/test_convnext", drop_path=0.3).body
    assert max(getattr(module, "drop_prob", None) or 0 for module in body.modules()) == pytest.approx(0.3)


# -- extra maps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("resnet50_a", BatchNorm),
        ("swin_a", nn.LayerNorm),
        ("swin_b", nn.LayerNorm),
        ("timm/test_byobnet", nn.LayerNorm),
        ("timm/test_convnext", nn.LayerNorm),
    ],
)
def test_extra_maps_are_normalised(name: str, kind: type[nn.Module]) -> None:
    with torch.device("meta"):
        extras = build(name).extras
    norms = [module for module in extras.modules() if isinstance(module, nn.BatchNorm2d | nn.LayerNorm)]
    assert len(norms) == 2 * len(extras.halve) and all(isinstance(norm, kind) for norm in norms)


def test_extra_maps_of_one_image_and_one_cell_can_be_trained() -> None:
    maps = ExtraMaps(8, (8, 8, 8), BatchNorm)(torch.randn(1, 8, 2, 2))
    assert [tuple(y.shape) for y in maps] == [(1, 8, 1, 1)] * 3
    torch.stack(maps).sum().backward()


# -- timm ------------------------------------------------------------------------------------------------------------


def test_maps_with_large_values_are_normalised() -> None:
    """A new head would begin with losses in the hundreds, which it takes epochs to come down from."""
    backbone = build("timm/tf_efficientnet_lite0").train()
    for name, parameter in backbone.body.named_parameters():
        if name.endswith("bn3.weight"):
            parameter.data.fill_(30.0)
    x = torch.randn(4, 3, 96, 96)
    assert max(y.std() for y in backbone.body(x)) > 5
    assert all(0.5 < y.std() < 1.5 for y in backbone(x)[:3])


def test_models_with_channels_behind_are_turned() -> None:
    maps = build("timm/swin_tiny_patch4_window7_224", (64, 96))(torch.randn(1, 3, 64, 96))
    assert [tuple(y.shape) for y in maps[:3]] == [(1, 192, 8, 12), (1, 384, 4, 6), (1, 768, 2, 3)]


def test_models_without_a_pyramid_are_refused() -> None:
    with pytest.raises(UserError, match=r"detection\.backbone: .* timm/test_vit have strides \[16, 16, 16\], but \[8"):
        build("timm/test_vit")


def test_options_that_a_model_does_not_know_are_refused() -> None:
    with pytest.raises(UserError, match=r"detection\.drop_path: vgg11 has no stochastic depth; set it to null"):
        build("timm/vgg11", drop_path=0.1)
