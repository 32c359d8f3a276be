"""Both ways to move tensors towards others: equal to the formula, for any kind of number."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from engine.devices.averaging import lerp_one_by_one, lerp_together
from engine.devices.kinds import DEVICES


def pairs() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    shapes, kinds = [(3, 4), (), (5,), (2, 2)], [torch.float32, torch.float32, torch.float64, torch.bfloat16]
    return [
        (torch.randn(shape, generator=generator).to(kind), torch.randn(shape, generator=generator).to(kind))
        for shape, kind in zip(shapes, kinds, strict=True)
    ]


@pytest.mark.parametrize("lerp", [lerp_one_by_one, lerp_together])
def test_tensors_move_by_the_weight(lerp: Callable[..., None]) -> None:
    moved, targets = zip(*pairs(), strict=True)
    lerp(moved, targets, torch.tensor(0.25))
    for value, (start, target) in zip(moved, pairs(), strict=True):
        expected = start.double() + 0.25 * (target.double() - start.double())
        rtol = 1e-2 if value.dtype == torch.bfloat16 else 1e-6
        torch.testing.assert_close(value.double(), expected, rtol=rtol, atol=0)


def test_each_kind_of_device_has_its_own() -> None:
    assert DEVICES["cpu"].lerp is lerp_one_by_one
    assert DEVICES["cuda"].lerp is lerp_together
