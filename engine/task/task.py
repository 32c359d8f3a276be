"""What a task gives the training loop, and all that the loop knows of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from engine.data.batch_plan import Order
from engine.data.workers import SampleReader, WorkerSettings
from engine.distributed.ranks import Ranks
from engine.images.image_io import ImageArray
from engine.task.metrics import Metrics


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation has found; the same on every rank."""

    metrics: dict[str, float]
    findings: dict[str, Any] = field(default_factory=dict)
    """Plain values that belong to the weights from now on, such as tuned thresholds: they are kept in checkpoints."""
    draw: Callable[[], Mapping[str, ImageArray]] = dict
    """Draws images for TensorBoard, by name. Called on rank 0, and only if the result is the best so far."""
    write: Callable[[Path, int], Mapping[str, ImageArray]] | None = None
    """Writes files of every evaluation into the run's results/, given that folder and the step, and returns images for
    TensorBoard by name. Called on rank 0."""
    curves: Callable[[], Mapping[str, NDArray[np.float64]]] = dict
    """Computes precision over recall for TensorBoard, by name, as :mod:`engine.plots.thresholds` does. Called as
    ``draw`` is."""


class Task(Protocol):
    """One kind of training: its model, its data, its loss and its metrics."""

    name: str
    """That of its package, see :class:`engine.task.spec.TaskSpec`."""
    model: nn.Module
    """The bare model, on its device; state dicts carry its names."""
    drop_last: bool
    """Whether an epoch's last, incomplete batch is left out."""
    slot_multiple: int
    """What a device's micro-batch has to be divisible by: 2 where neighbours are mixed, else 1."""
    workers: WorkerSettings
    """How training samples are read."""
    metrics: Metrics
    """What :meth:`evaluate` measures."""

    @property
    def train_data(self) -> SampleReader:
        """Holds the training samples: ``train_data[draw]`` is one sample, augmented as its draw decides."""
        ...

    @property
    def train_order(self) -> Order:
        """Tells which samples an epoch takes, in which order."""
        ...

    def training_step(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Computes the forward pass and the loss of one micro-batch that lies on the device.

        ``model`` is the bare model as wrapped for training. Returns ``loss``, the mean over the micro-batch's samples,
        and any further scalars to be recorded, means as well.
        """
        ...

    def evaluate(self, model: nn.Module, split: str, ranks: Ranks) -> Evaluated:
        """Measures ``model`` on ``val`` or ``test``; every rank calls it and gets the same."""
        ...

    def previews(self) -> Mapping[str, ImageArray]:
        """Draws images of what the model is trained on, such as ``train_samples``: a sheet of augmented samples.

        Asked for at a run's beginning, on rank 0.
        """
        ...

    def example(self) -> tuple[torch.Tensor, ...]:
        """Returns what the model takes for one image, on its device: to count what it computes."""
        ...

    def metadata(self) -> dict[str, Any]:
        """Returns plain values kept in checkpoints, such as class names: what one needs to use the weights."""
        ...
