"""What a model says of each sample of a split, gathered from all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

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


MultiLabelRows = tuple[Tensor, Tensor, Tensor]
"""One batch of B samples with C labels: index and loss (B, 2) float64, labels (B, C) uint8, logits (B, C) float32."""


def rows(indices: Tensor, labels: Tensor, logits: Tensor, losses: Tensor) -> Tensor:
    """Packs a batch into a float64 matrix (B, 3 + 2 K) on its device: index, label, loss, classes, probabilities."""
    probabilities, top = logits.double().softmax(dim=1).topk(min(TOP, logits.shape[1]), dim=1)
    columns = [indices[:, None], labels[:, None], losses[:, None], top, probabilities]
    return torch.cat([column.to(logits.device, torch.float64) for column in columns], dim=1)


def gather(parts: list[Tensor], num_classes: int, ranks: Ranks) -> Predictions:
    """Gathers all ranks' rows, sorted by index; each sample occurs once, however many ranks there are."""
    kept = min(TOP, num_classes)
    empty = torch.empty(0, 3 + 2 * kept, dtype=torch.float64, device=ranks.device)
    (table,) = _gathered((empty,), [(part,) for part in parts], ranks)
    _, labels, losses, top, probabilities = np.split(table.numpy(), (1, 2, 3, 3 + kept), axis=1)
    return Predictions(labels[:, 0].astype(np.int64), top.astype(np.int64), probabilities, losses[:, 0])


def multilabel_rows(indices: Tensor, labels: Tensor, logits: Tensor, losses: Tensor) -> MultiLabelRows:
    """Packs a batch: indices (B,), labels (B, C) of 0 and 1, logits (B, C) and losses (B,)."""
    return torch.stack([indices.double(), losses.double()], dim=1), labels.to(torch.uint8), logits.float()


def gather_multilabel(parts: list[MultiLabelRows], num_classes: int, ranks: Ranks) -> MultiLabelPredictions:
    """Gathers all ranks' rows, sorted by index; each sample occurs once, however many ranks there are.

    Logits travel in float32, which is what a model computes, and become probabilities in float64: nothing is rounded
    twice, and five bytes a label are all that the ranks exchange.
    """
    widths = ((2, torch.float64), (num_classes, torch.uint8), (num_classes, torch.float32))
    empty = tuple(torch.empty(0, width, dtype=dtype, device=ranks.device) for width, dtype in widths)
    index_and_loss, labels, logits = _gathered(empty, parts, ranks)
    return MultiLabelPredictions(labels.bool().numpy(), logits.double().sigmoid().numpy(), index_and_loss[:, 1].numpy())


def _gathered(empty: tuple[Tensor, ...], parts: Sequence[tuple[Tensor, ...]], ranks: Ranks) -> list[Tensor]:
    """All ranks' ``parts``, column by column, sorted by index, which is the first number of a row."""
    columns = [ranks.gather_rows(torch.cat(column)).cpu() for column in zip(empty, *parts, strict=True)]
    indices = columns[0][:, 0]
    assert len(indices.unique()) == len(indices), "a sample was evaluated twice"
    order = indices.argsort()
    return [column[order] for column in columns]
