"""What Keras calls the layers that our modules stand for."""

from __future__ import annotations

import re

from torch import nn


def _with_weights(model: nn.Module) -> list[tuple[str, nn.Module]]:
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    return [(path, module) for path, module in model.named_modules() if isinstance(module, kinds)]


EXPANDED = {"conv_pw": "expand", "bn1": "expand_bn", "conv_dw": "depthwise", "bn2": "depthwise_bn"}
EXPANDED |= {"conv_pwl": "project", "bn3": "project_bn"}
FIRST = {"conv_dw": "depthwise", "bn1": "depthwise_bn", "conv_pw": "project", "bn2": "project_bn"}
"""Parts of a block by timm's names; the first has nothing to expand."""


def efficientnet(model: nn.Module) -> dict[str, str]:
    """Names layers of EfficientNetB0: block2a_expand_conv and so on."""
    found = {"conv_stem": "stem_conv", "bn1": "stem_bn", "conv_head": "top_conv", "bn2": "top_bn"}
    found["classifier"] = "predictions"
    own = {"depthwise": "dwconv", "depthwise_bn": "bn", "expand": "expand_conv", "project": "project_conv"}
    for path, _ in _with_weights(model):
        if match := re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(.+)", path):
            parts = FIRST if match[1] == "0" else EXPANDED
            part = {"se.conv_reduce": "se_reduce", "se.conv_expand": "se_expand"}.get(match[3]) or parts[match[3]]
            found[path] = f"block{int(match[1]) + 1}{chr(ord('a') + int(match[2]))}_{own.get(part, part)}"
    return found


def mobilenet(model: nn.Module) -> dict[str, str]:
    """Names layers of MobileNetV3Large: expanded_conv_3_project and so on."""
    found = {"conv_stem": "conv", "bn1": "conv_bn", "conv_head": "conv_2", "classifier": "logits"}
    found |= {"blocks.6.0.conv": "conv_1", "blocks.6.0.bn1": "conv_1_bn"}
    places: dict[tuple[str, str], int] = {}
    for path, _ in _with_weights(model):
        if (match := re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(.+)", path)) and path not in found:
            place = places.setdefault((match[1], match[2]), len(places))
            squeezing = {"se.conv_reduce": "squeeze_excite_conv", "se.conv_expand": "squeeze_excite_conv_1"}
            part = squeezing.get(match[3]) or (EXPANDED if place else FIRST)[match[3]]
            found[path] = f"expanded_conv_{place}_{part}" if place else f"expanded_conv_{part}"
    return found


def inception(model: nn.Module) -> dict[str, str]:
    """Names layers of InceptionV3, which are numbered: conv2d, conv2d_1 and so on."""
    found = {"fc": "predictions"}
    for kind, name in ((nn.Conv2d, "conv2d"), (nn.BatchNorm2d, "batch_normalization")):
        paths = [path for path, module in _with_weights(model) if isinstance(module, kind)]
        found |= {path: f"{name}_{number}" if number else name for number, path in enumerate(paths)}
    return found


def resnet(model: nn.Module) -> dict[str, str]:
    """Names layers of ResNet50: conv2_block1_0_conv and so on."""
    found = {"conv1": "conv1_conv", "bn1": "conv1_bn", "fc": "predictions"}
    for path, _ in _with_weights(model):
        if match := re.fullmatch(r"layer(\d)\.(\d+)\.(conv|bn|downsample\.)(\d)", path):
            kind, number = match[3], int(match[4])
            if kind == "downsample.":
                kind, number = ("conv", "bn")[number], 0
            found[path] = f"conv{int(match[1]) + 1}_block{int(match[2]) + 1}_{number}_{kind}"
    return found
