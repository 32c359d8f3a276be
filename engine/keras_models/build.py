"""The modules: timm's, with what Keras does in another way changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from engine.keras_models.names import efficientnet, inception, mobilenet, resnet


@dataclass(frozen=True)
class Architecture:
    """How one of Keras's models is made of one of timm's."""

    timm_name: str
    epsilon: float
    momentum: float
    """Of batch norm, as torch counts it: one minus Keras's."""
    layers: Callable[[nn.Module], dict[str, str]]
    """Returns the name of Keras's layer for each module with weights."""
    family: str
    """Pattern of names that none but its layers and those of its larger relatives have."""
    adapt: Callable[[nn.Module], None] = lambda model: None
    bgr: bool = False
    """Whether Keras's first layer takes blue before red."""
    smallest: int = 1
    """Side of an image that leaves something to convolve, in pixels."""


class _PooledConv(nn.Module):
    """A convolution behind an average over 3 x 3 pixels, of which those beyond the edge do not count.

    timm's average counts them as zeros: what it gives is scaled here.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.conv: nn.Module = layer.conv
        self.bn: nn.Module = layer.bn

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (self._counted(side, x) for side in x.shape[2:])
        return self.bn(self.conv(x * (9 / (rows[:, None] * columns))))

    @staticmethod
    def _counted(side: int, like: Tensor) -> Tensor:
        places = torch.arange(side, device=like.device)
        return 3 - (places == 0).to(like.dtype) - (places == side - 1).to(like.dtype)


def _adapt_inception(model: nn.Module) -> None:
    for name, block in model.named_children():
        if name.startswith("Mixed_") and hasattr(block, "branch_pool"):
            block.branch_pool = _PooledConv(block.branch_pool)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_parameter("weight", None)  # scale=False


def _adapt_resnet(model: nn.Module) -> None:
    for name in ("layer2", "layer3", "layer4"):
        block: Any = model.get_submodule(f"{name}.0")
        block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)


ARCHITECTURES = {
    "keras/EfficientNetB0": Architecture("tf_efficientnet_b0", 1e-3, 0.01, efficientnet, r"block\d[a-z]_\w+"),
    "keras/MobileNetV3Large": Architecture("tf_mobilenetv3_large_100", 1e-3, 0.001, mobilenet, r"expanded_conv_\w+"),
    "keras/InceptionV3": Architecture(
        "inception_v3", 1e-3, 0.01, inception, r"conv2d(_\d+)?", _adapt_inception, smallest=75
    ),
    "keras/ResNet50": Architecture("resnet50", 1.001e-5, 0.01, resnet, r"conv\d_block\d+_\w+", _adapt_resnet, bgr=True),
}
"""By the names that `model.name` has for them."""


def build_keras(name: str, num_classes: int, drop_rate: float, drop_path: float | None) -> nn.Module:
    """Builds a model (B, 3, H, W) -> logits (B, num_classes), initialised from torch's global generator.

    Raises:
        TypeError: it has no stochastic depth, and ``drop_path`` is not None.
    """
    architecture = ARCHITECTURES[name]
    options: dict[str, Any] = {} if drop_path is None else {"drop_path_rate": drop_path}
    model = timm.create_model(architecture.timm_name, num_classes=num_classes, drop_rate=drop_rate, **options)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps, layer.momentum = architecture.epsilon, architecture.momentum
    architecture.adapt(model)
    return model
