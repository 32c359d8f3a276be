"""Depthwise convolutions, one channel a group, that train in bf16 on CPUs as fast as the hardware allows.

oneDNN (3.12) has no kernels of its own for some of their gradients in bf16: with kernels of more than 3x3, or strides,
they take three to seven times as long as in fp32, and a MobileNet or EfficientNet trains slower in bf16 than in fp32.
Here these gradients are computed in fp32, from the same bf16 activations; all else stays in bf16.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import pad_same
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn


def quicken_depthwise(model: nn.Module) -> None:
    """Replaces the classes of those convolutions of ``model``, in place; names and values of its parameters stay."""
    for module in model.modules():
        if type(module) in _QUICK and _is_slow(module):  # type: ignore[arg-type]
            module.__class__ = _QUICK[type(module)]


def _is_slow(conv: nn.Conv2d) -> bool:
    """Returns whether bf16 gradients of this convolution take longer than fp32's (zero padding alone is replaced)."""
    depthwise = conv.groups == conv.in_channels > 1 and conv.padding_mode == "zeros"
    return depthwise and not isinstance(conv.padding, str) and (max(conv.kernel_size) > 3 or max(conv.stride) > 1)


class _DepthwiseConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return _convolve(self, x, self.padding) if _trains_in_bf16(x) else super().forward(x)


class _DepthwiseConv2dSame(Conv2dSame):
    def forward(self, x: Tensor) -> Tensor:
        if not _trains_in_bf16(x):
            return super().forward(x)
        padded = pad_same(x.bfloat16(), list(self.weight.shape[-2:]), list(self.stride), list(self.dilation))
        return _convolve(self, padded, (0, 0))


_QUICK: dict[type[nn.Module], type[nn.Module]] = {nn.Conv2d: _DepthwiseConv2d, Conv2dSame: _DepthwiseConv2dSame}


def _trains_in_bf16(x: Tensor) -> bool:
    wanted = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return wanted and x.device.type == "cpu" and torch.is_grad_enabled()


def _convolve(conv: nn.Conv2d, x: Tensor, padding: Any) -> Tensor:
    return _Convolution.apply(x.bfloat16(), conv.weight, conv.bias, conv.stride, padding, conv.dilation, conv.groups)


class _Convolution(torch.autograd.Function):
    """``F.conv2d`` of a bf16 (B, C, H, W), computed in bf16, with gradients computed in fp32."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        groups: int,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = (stride, padding, dilation, False, (0, 0), groups)
        ctx.bias_sizes = None if bias is None else bias.shape
        return F.conv2d(
            x, weight.bfloat16(), None if bias is None else bias.bfloat16(), stride, padding, dilation, groups
        )

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[:3])
        to_x, to_weight, to_bias = torch.ops.aten.convolution_backward(
            gradient.float(), x.float(), weight.bfloat16().float(), ctx.bias_sizes, *ctx.geometry, wanted
        )
        return to_x.bfloat16() if wanted[0] else None, to_weight, to_bias, None, None, None, None
