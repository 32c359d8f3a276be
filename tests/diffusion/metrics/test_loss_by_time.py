from __future__ import annotations

import numpy as np
import torch

from diffusion.metrics.loss_by_time import LossByTime
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks

ALONE = Ranks(Layout(), torch.device("cpu"))


def test_losses_are_averaged_in_the_bin_of_their_time() -> None:
    times, losses = torch.tensor([0.0, 0.24, 0.25, 0.999, 1.0]), torch.tensor([1.0, 3, 5, 7, 9])
    sums = LossByTime(ALONE.device, bins=4)
    for rows in torch.arange(5).split(2):
        sums.add(times[rows], losses[rows])
    mean, bins = sums.over_ranks(ALONE)
    assert mean == 5
    np.testing.assert_equal(bins, [2, 5, np.nan, 8])
