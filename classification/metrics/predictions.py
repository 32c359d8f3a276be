"""What a model says of each sample of a split, gathered from all ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from engine.distributed.ranks import Ranks

TOP = 5
"""Classes kept for each sample of one label."""


@dataclass(frozen=True)
class Predictions:
    """Results of N samples of one label each, in the order of the data set.

    K is the lesser of 5 and the number of classes.
    """

    labels: np.ndarray
    """(N,) true classes."""
    top: np.ndarray
    """(N, K) most probable classes, best first."""
    probabilities: np.ndarray
    """(N, K) their probabilities."""
    losses: np.ndarray
    """(N,) loss of each sample."""


@dataclass(frozen=True)
class MultiLabelPredictions:
    """Results of N samples with any number of C labels each, in the order of the data set."""

    labels: np.ndarray
    """(N, C) bool: which labels are true."""
    probabilities: np.ndarray
    """(N, C) float64 in [0, 1]: of each label by itself."""
    losses: np.ndarray
    """(N,) float64: loss of each sample."""


AnyPredictions = Predictions | MultiLabelPredictions


class MultiLabelRows(NamedTuple):
    """One batch of B samples with C labels."""

    index_and_loss: torch.Tensor
    """(B, 2) float64."""
    labels: torch.Tensor
    """(B, C) uint8."""
    logits: torch.Tensor
    """(B, C) float32."""


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
    table = table[_order(table[:, 0])]
    split = 3 + (width - 3) // 2
    return Predictions(
        labels=table[:, 1].astype(np.int64),
        top=table[:, 3:split].astype(np.int64),
        probabilities=table[:, split:],
        losses=table[:, 2],
    )


def multilabel_rows(
    indices: torch.Tensor, labels: torch.Tensor, logits: torch.Tensor, losses: torch.Tensor
) -> MultiLabelRows:
    """One batch, from indices (B,), labels (B, C) of 0 and 1, logits (B, C) and losses (B,)."""
    index_and_loss = torch.stack([indices.double(), losses.double()], dim=1)
    return MultiLabelRows(index_and_loss, labels.to(torch.uint8), logits.float())


def gather_multilabel(parts: list[MultiLabelRows], num_classes: int, ranks: Ranks) -> MultiLabelPredictions:
    """All ranks' rows, sorted by index; each sample occurs once, however many ranks there are.

    Logits travel in float32, which is what a model computes, and become probabilities in float64: nothing is rounded
    twice, and five bytes a label are all that the ranks exchange.
    """
    device = ranks.device
    empty = MultiLabelRows(
        torch.empty(0, 2, dtype=torch.float64, device=device),
        torch.empty(0, num_classes, dtype=torch.uint8, device=device),
        torch.empty(0, num_classes, dtype=torch.float32, device=device),
    )
    columns = [ranks.gather_rows(torch.cat(column)).cpu() for column in zip(empty, *parts, strict=True)]
    order = torch.from_numpy(_order(columns[0][:, 0].numpy()))
    index_and_loss, labels, logits = (column[order] for column in columns)
    return MultiLabelPredictions(
        labels=labels.bool().numpy(),
        probabilities=logits.double().sigmoid().numpy(),
        losses=index_and_loss[:, 1].numpy(),
    )


def _order(indices: np.ndarray) -> np.ndarray:
    """Rows in the order of the data set."""
    assert len(np.unique(indices)) == len(indices), "a sample was evaluated twice"
    return np.argsort(indices, kind="stable")
