"""A trained model in use: what a task makes of an experiment, to be evaluated and to be asked about images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.data.names import Names
from engine.devices.precision import Precision
from engine.distributed.ranks import Ranks
from engine.images.lazy_image import LazyImage


@dataclass(frozen=True)
class Measured:
    """What an evaluation of a trained model has found."""

    metrics: dict[str, float]
    """The same on every rank."""
    write_report: Callable[[Path, str], None]
    """Writes report.md and all that belongs to it into a folder, under a title; for rank 0 to call."""
    own_data: bool = False
    """Whether rank 0 knows that it was measured on the images of the run, wherever they lie now."""


class Inference(Protocol):
    """A task's model with the weights of a checkpoint, on its device."""

    model: nn.Module

    def evaluate(self, split: str, ranks: Ranks) -> Measured:
        """Measures the model on ``val`` or ``test``; every rank calls it, within :func:`inference_mode`."""
        ...


class ImageInference(Inference, Protocol):
    """One that can be asked about any images."""

    classes: list[str]
    """Their names, by number."""

    @property
    def transform(self) -> Callable[[LazyImage], Tensor]:
        """Makes of an image what :meth:`inputs` takes, uint8 (3, H, W)."""
        ...

    def inputs(self, images: Tensor) -> Tensor:
        """Returns what :attr:`model` is given of uint8 images (B, 3, H, W) on its device: float32, normalised.

        Raises:
            UserError: the model takes no tensors, but runs elsewhere.
        """
        ...

    def answers(self, images: Tensor, sizes: Tensor) -> list[Any]:
        """Returns what the model says of each of B images.

        Args:
            images: uint8 (B, 3, H, W), on any device.
            sizes: (B, 2) their widths and heights in pixels before :attr:`transform`.
        """
        ...


class ClassifierInference(ImageInference, Protocol):
    """One that tells classes apart, so that it can judge images that another task has made."""

    multi_label: bool
    """Whether an image may show several of them."""

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what its last layer is given of each of B images, (B, F), and the classes' probabilities, (B, C).

        Args:
            images: uint8 (B, 3, H, W) as :attr:`transform` makes them.
        """
        ...


@dataclass(frozen=True)
class Answers:
    """What a model says of N image files; the same on every rank."""

    names: Names
    """What the user calls them."""
    files: Names
    rows: NDArray[np.float64]
    """(R, W) rows of :meth:`Prediction.rows` without those of unreadable images, in the order of the images."""
    sizes: NDArray[np.int64]
    """(N, 2) widths and heights in pixels."""
    faults: dict[int, str]
    """Why images cannot be read, by their numbers, which increase."""

    @property
    def readable(self) -> list[int]:
        """Numbers of the images that are no faults."""
        return [index for index in range(len(self.files)) if index not in self.faults]


class Prediction(Protocol):
    """What a task's predict command takes from a model's output, and writes."""

    @property
    def faults_in(self) -> str:
        """Tells where the results name images that cannot be read: the log has the first few."""
        ...

    def check_output(self, inputs: Sequence[Path]) -> None:
        """Checks, on rank 0, that the output can be written and is nobody's: neither one of ``inputs`` nor a file of
        another kind. Raises a UserError.
        """
        ...

    def rows(self, inference: Any, batch: dict[str, Tensor]) -> Tensor:
        """Returns what is kept of a batch as a float64 matrix: number of the image, and any columns.

        Args:
            batch: ``image`` uint8 (B, 3, H, W), ``index`` (B,), ``size`` (B, 2) width and height, on the CPU.
        """
        ...

    def write(self, inference: Any, answers: Answers, ranks: Ranks) -> None:
        """Writes the results; every rank calls it."""
        ...


@contextmanager
def inference_mode(model: nn.Module, precision: Precision) -> Iterator[None]:
    """Sets evaluation mode, no gradients, and the run's arithmetic. The model is left in evaluation mode."""
    model.eval()
    with torch.inference_mode(), precision.autocast():
        yield
