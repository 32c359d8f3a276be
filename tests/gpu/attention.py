"""The attention of windows beside its formula in float64: values, gradients, and the kernel that was taken."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from swin.attention import WindowAttention, attend
from swin.windows import make_grid, shift_mask
from tests.gpu.findings import Findings
from tests.swin.formula import by_formula

LARGEST_ERROR = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
"""Of values and gradients, relative to the largest of them."""
HEADS, CHANNELS = 3, 32
KERNEL = "aten::_scaled_dot_product_"


def attention(findings: Findings) -> None:
    """All sizes of windows and types, with and without a mask."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    for side, shifted, dtype in itertools.product((7, 12), (False, True), LARGEST_ERROR):
        name = f"N {side * side}{' mask' if shifted else ''} {str(dtype).removeprefix('torch.')}"
        with findings.part(name):
            _compare(findings, name, side, shifted, dtype)


def _compare(findings: Findings, name: str, side: int, shifted: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    device = torch.device(findings.device)
    mask = shift_mask(make_grid(2 * side, 2 * side, (side, side), shifted), device)
    findings.check((mask is not None) == shifted, f"{name}: the windows are not as wanted")
    module = WindowAttention(HEADS * CHANNELS, HEADS, (side, side)).to(device)
    windows = 4 if findings.small else 256
    qkv = torch.randn(windows, side * side, 3, HEADS, CHANNELS, device=device).to(dtype)
    weights = torch.randn(windows, side * side, HEADS, CHANNELS, device=device)

    def run(double: bool) -> list[Tensor]:
        """Output, gradient of the inputs, and of the table of biases."""
        inputs = (qkv.double() if double else qkv.clone()).requires_grad_()
        table = module.relative_position_bias_table
        bias, way = module.position_bias(), by_formula if double else attend
        out = way(inputs, bias.double() if double else bias, mask.double() if double and shifted else mask)
        return [out, *torch.autograd.grad((out * weights).sum(), (inputs, table))]

    expected = [tensor.double() for tensor in run(double=True)]
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        found = [tensor.double() for tensor in run(double=False)]
    kernels = {event.key.removeprefix(KERNEL) for event in profiled.key_averages() if event.key.startswith(KERNEL)}
    kernel = "+".join(sorted(key for key in kernels if "backward" not in key)) or "composed"
    errors = [float((one - other).abs().max() / other.abs().max()) for one, other in zip(found, expected, strict=True)]
    findings.figure(name, f"{kernel}, errors {'/'.join(f'{error:.0e}' for error in errors)}")
    for what, error in zip(("output", "gradient of the inputs", "gradient of the biases"), errors, strict=True):
        findings.check(error <= LARGEST_ERROR[dtype], f"{name}: {what} is off by {error:.1e} ({kernel})")
    if device.type == "cuda":
        findings.check("math" not in kernel, f"{name}: no fused kernel was taken, but {kernel}")
