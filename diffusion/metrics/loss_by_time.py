"""The loss of held-out images by the time that they were noised to: where along the way a network is weak."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.distributed.ranks import Ranks

BINS = 10


class LossByTime:
    """Sums of losses in bins of equal width over [0, 1): sum and count, divided once."""

    def __init__(self, device: torch.device, bins: int = BINS) -> None:
        self._sums = torch.zeros(2, bins, dtype=torch.float64, device=device)

    def add(self, times: Tensor, losses: Tensor) -> None:
        """Adds the losses (B,) of samples at times (B,), the uniform numbers that they follow from, in [0, 1)."""
        bins = self._sums.shape[1]
        places = (times.double() * bins).floor().clamp(0, bins - 1)
        inside = (places == torch.arange(bins, device=places.device)[:, None]).double()  # (bins, B)
        self._sums += torch.stack([inside @ losses.double(), inside.sum(1)])

    def over_ranks(self, ranks: Ranks) -> tuple[float, NDArray[np.float64]]:
        """Returns the mean over all samples of all ranks, and those of the bins, NaN of an empty one; called once."""
        sums, counts = ranks.sum_(self._sums).cpu().numpy()
        means = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
        return float(sums.sum() / counts.sum()), means
