"""The moving average of the weights, followed without a word to the host."""

from __future__ import annotations

from itertools import accumulate, groupby

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from engine.config.training import EmaConfig
from engine.devices.kinds import device_kind

_CHUNK_BYTES = 2**26
"""About how much of the model is averaged at once, as the differences may take memory of their own."""


class MovingAverage(ModelEmaV3):
    """timm's moving average, with an update that the device leaves out after a step that was not finite.

    ``module`` holds the average. The model's tensors are looked up once: they may change, but not be replaced.
    """

    def __init__(self, model: nn.Module, config: EmaConfig) -> None:
        super().__init__(model, decay=config.decay, use_warmup=config.warmup)
        pairs = list(zip(self.module.state_dict().values(), model.state_dict().values(), strict=True))
        averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        ends = accumulate(average.nbytes for average, _ in averaged)
        chunks = groupby(zip(averaged, ends, strict=True), lambda item: item[1] // _CHUNK_BYTES)
        self._averaged = [tuple(zip(*(pair for pair, _ in chunk), strict=True)) for _, chunk in chunks]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def follow(self, update: int, skipped: Tensor) -> None:
        """Moves the average towards the model as it is after its ``update``-th update, counted from 1.

        Args:
            skipped: 0-dim, on the device: 1 if the model was not updated, so that the average stays too; else 0.
        """
        weight = (1.0 - self.get_decay(update)) * (1.0 - skipped)
        for averages, values in self._averaged:
            device_kind(skipped.device).lerp(averages, values, weight)
        if self._copied:
            torch._foreach_copy_([average for average, _ in self._copied], [value for _, value in self._copied])
