"""Running statistics of batch norm over several ranks."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from engine.distributed.ranks import Ranks


class BatchNormStatistics:
    """Keeps the running means and variances of all ranks equal, and undoes those of a skipped step.

    Each rank normalises by its own micro-batch and moves its running statistics accordingly. After every optimizer step
    one small reduction gives all ranks the mean of their statistics, so that evaluation and checkpoints need none.
    Layers that are ``held`` in evaluation mode are left alone: they do not change, and are to keep their last bits.
    """

    def __init__(self, model: nn.Module, ranks: Ranks, held: Collection[nn.Module] = ()) -> None:
        self._ranks = ranks
        self._buffers = [
            buffer
            for module in model.modules()
            if isinstance(module, _BatchNorm) and module.track_running_stats and module not in held
            for buffer in (module.running_mean, module.running_var)
            if buffer is not None
        ]
        self._good = self._flat()
        parts = self._good.split([buffer.numel() for buffer in self._buffers])
        self._parts = [part.view_as(buffer) for part, buffer in zip(parts, self._buffers, strict=True)]

    def __bool__(self) -> bool:
        return bool(self._buffers)

    @torch.no_grad()
    def settle(self, skipped: torch.Tensor) -> None:
        """Averages the statistics over the ranks after a good step, and takes them back after a skipped one.

        Args:
            skipped: 0-dim, on the device: 1 if the step was skipped, as its samples may not even be finite; else 0.
        """
        if not self._buffers:
            return
        latest = self._flat()
        if self._ranks.world_size > 1:
            self._ranks.sum_(latest)
            latest /= self._ranks.world_size
        self._good.copy_(torch.where(skipped > 0, self._good, latest))
        torch._foreach_copy_(self._buffers, self._parts)

    def reload(self) -> None:
        """Takes what the model now holds for good, after a checkpoint was loaded."""
        self._good.copy_(self._flat())

    def _flat(self) -> torch.Tensor:
        return torch.cat([b.flatten() for b in self._buffers]) if self._buffers else torch.empty(0)


def uses_batch_norm(model: nn.Module) -> bool:
    """Returns whether any layer normalises by the statistics of the batch it is given."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())
