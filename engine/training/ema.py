"""The moving average of the weights, followed without a word to the host."""

from __future__ import annotations

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from engine.config.training import EmaConfig
from engine.devices.kinds import device_kind


class MovingAverage(ModelEmaV3):
    """timm's moving average, with an update that the device leaves out after a step that was not finite.

    ``module`` holds the average. The model's tensors are looked up once: they may change, but not be replaced.
    """

    def __init__(self, model: nn.Module, config: EmaConfig) -> None:
        super().__init__(model, decay=config.decay, use_warmup=config.warmup)
        pairs = list(zip(self.module.state_dict().values(), model.state_dict().values(), strict=True))
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def follow(self, update: int, skipped: Tensor) -> None:
        """Moves the average towards the model as it is after its ``update``-th update, counted from 1.

        Args:
            skipped: 0-dim, on the device: 1 if the model was not updated, so that the average stays too; else 0.
        """
        weight = (1.0 - self.get_decay(update)) * (1.0 - skipped)
        device_kind(skipped.device).lerp(self._averaged, weight)
        if self._copied:
            torch._foreach_copy_([average for average, _ in self._copied], [value for _, value in self._copied])
