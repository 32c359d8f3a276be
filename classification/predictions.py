"""What a model says of each sample of a split, gathered from all ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from engine.dist import Ranks

TOP = 5
"""Classes kept for each sample."""


@dataclass(frozen=True)
class Predictions:
    """Results of N samples in the order of the data set; K is the lesser of 5 and the number of classes."""

    labels: np.ndarray
    """(N,) true classes."""
    top: np.ndarray
    """(N, K) most probable classes, best first."""
    probabilities: np.ndarray
    """(N, K) their probabilities."""
    losses: np.ndarray
    """(N,) loss of each sample."""


def rows(indices: torch.Tensor, labels: torch.Tensor, logits: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
    """One batch as a float64 matrix (B, 3 + 2 K) on its device: index, label, loss, classes, probabilities."""
    probabilities, top = logits.double().softmax(dim=1).topk(min(TOP, logits.shape[1]), dim=1)
    columns = [indices[:, None], labels[:, None], losses[:, None], top, probabilities]
    return torch.cat([column.to(logits.device, torch.float64) for column in columns], dim=1)


def gather(parts: list[torch.Tensor], num_classes: int, ranks: Ranks) -> Predictions:
    """All ranks' rows, sorted by index; each sample occurs once, however many ranks there are."""
    width = 3 + 2 * min(TOP, num_classes)
    own = torch.cat(parts) if parts else torch.empty(0, width, dtype=torch.float64, device=ranks.device)
    table = ranks.gather_rows(own).cpu().numpy()
    table = table[np.argsort(table[:, 0], kind="stable")]
    assert len(np.unique(table[:, 0])) == len(table), "a sample was evaluated twice"
    split = 3 + (width - 3) // 2
    return Predictions(
        labels=table[:, 1].astype(np.int64),
        top=table[:, 3:split].astype(np.int64),
        probabilities=table[:, split:],
        losses=table[:, 2],
    )
