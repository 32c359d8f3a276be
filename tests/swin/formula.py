"""Window attention as its formula says, without regard to speed and rounding."""

from __future__ import annotations

from torch import Tensor


def by_formula(qkv: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    """Returns (B * M, N, h, d) of the arguments of :func:`swin.attention.attend`."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    scores = q @ k.mT / qkv.shape[-1] ** 0.5 + bias
    if mask is not None:
        scores = scores + mask.repeat(len(q) // len(mask), 1, 1)[:, None]
    return (scores.softmax(-1) @ v).transpose(1, 2)
