"""What an optimizer step comes to: summed on the device, read by the host when it has queued more work."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.devices.kinds import DeviceNumbers

log = logging.getLogger(__name__)


class NonFiniteError(RuntimeError):
    """Too many steps in a row, or all of a run, had a loss or gradient that is not finite."""


def cure_of_skips(lr: float, precision: str) -> str:
    """Returns what to change where steps are skipped, with what it is now."""
    current = f"training.precision=fp32 (now {precision})"
    return f"lower optimizer.lr (now {lr:g}), set training.clip_grad_norm, or use {current}"


class SampleSums:
    """Sums of each metric over this rank's samples of one optimizer step, on the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[str, Tensor] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Returns the metrics in the order in which :meth:`packed` has them."""
        return tuple(self._sums)

    def add(self, means: dict[str, Tensor], num_samples: int) -> None:
        """Adds a micro-batch, of each metric its mean over the samples.

        One that only keeps its rank busy has none of them and counts nothing, not even if it is not finite.
        """
        for name, value in means.items():
            share = value.detach().float() * num_samples if num_samples else 0.0
            self._sums[name] = self._sums.get(name, torch.zeros((), device=self._device)) + share

    def packed(self, *requests: bool) -> Tensor:
        """Returns the sums and, as 0 or 1, what this rank was asked for, so that all ranks can add them up at once."""
        asked = (torch.full((), float(request), device=self._device) for request in requests)
        return torch.stack([*self._sums.values(), *asked])


@dataclass(frozen=True)
class StepResult:
    """Result of an optimizer step, over all ranks."""

    step: int
    """Number of the step, counted from 1."""
    samples: int
    sums: dict[str, float]
    """Of each metric over the samples."""
    grad_norm: float
    stop_asked: bool
    """Whether a rank was asked to stop."""
    save_asked: bool
    """Whether rank 0's clock asked for a checkpoint."""

    @classmethod
    def read(cls, step: int, samples: int, names: Sequence[str], numbers: DeviceNumbers) -> StepResult:
        """Waits until ``numbers`` have arrived on the host.

        Args:
            numbers: over all ranks: the sum of each of ``names``, how many ranks were asked to stop and to save; and
                the gradient's norm.
        """
        *values, stops, saves, grad_norm = numbers.read()
        return cls(step, samples, dict(zip(names, values, strict=True)), grad_norm, stops > 0, saves > 0)

    @property
    def finite(self) -> bool:
        """Returns whether the step has changed the weights: loss and gradient are finite."""
        return all(math.isfinite(value) for value in (*self.sums.values(), self.grad_norm))

    def warn_of_skip(self, in_row: int, limit: int, cure: str) -> None:
        """Warns that this step was skipped, the last of ``in_row``; raises :class:`NonFiniteError` at ``limit``."""
        shown = ", ".join(f"{name} {value:g}" for name, value in {**self.sums, "grad_norm": self.grad_norm}.items())
        log.warning("step %d skipped: not finite (sums: %s); %d in a row", self.step, shown, in_row)
        if in_row >= limit:
            raise NonFiniteError(
                f"{limit} steps in a row, up to step {self.step}, had a loss or gradient that is not finite; {cure}"
            )
