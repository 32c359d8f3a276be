"""From decoded images to what a model says of them: the same path in training's evaluations, evaluate and predict."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from classification.losses.multi_label import binary_cross_entropy
from classification.losses.single_label import cross_entropy
from classification.metrics.predictions import AnyPredictions, gather, gather_multilabel, multilabel_rows, rows
from engine.data.loaders import EvalLoader
from engine.data.workers import WorkerSettings, stacked
from engine.datasets.dataset import ImageReader
from engine.datasets.labelled import LabelledImages
from engine.devices.memory_layout import laid_out
from engine.distributed.ranks import Ranks
from engine.images.normalization import Normalization
from engine.images.preprocessing import Preprocessing
from engine.images.transforms import EvalTransform


@dataclass
class Classifier:
    """Asks a model. Its methods are given it: it may be wrapped for training, or be its moving average."""

    preprocessing: Preprocessing
    num_classes: int
    device: torch.device
    _: KW_ONLY
    multi_label: bool
    tta: str
    """`evaluation.tta`."""
    channels_last: bool

    def __post_init__(self) -> None:
        self.normalized = Normalization(self.preprocessing, self.device)

    def inputs(self, images: Tensor) -> Tensor:
        """Returns what a model is given of uint8 images (B, 3, H, W) on the device: float32, normalised."""
        return laid_out(self.normalized(images), self.channels_last)

    def logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """Maps uint8 images (B, 3, H, W) on the device to (B, C): float32, or with test-time augmentation float64."""
        inputs = self.inputs(images)
        logits = model(inputs).float()
        if self.tta == "none":
            return logits
        return mean_of_two(logits, model(laid_out(inputs.flip(3), self.channels_last)).float(), self.multi_label)

    def judged(self, model: nn.Module, batch: dict[str, Tensor]) -> Any:
        """Returns what :meth:`predict` gathers of a collated batch, which may lie anywhere; on the device.

        The loss is plain cross entropy, or with several labels an image plain binary cross entropy: smoothing, mixing
        and weights belong to training.
        """
        loss, columns = (binary_cross_entropy, multilabel_rows) if self.multi_label else (cross_entropy, rows)
        data = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
        logits = self.logits(model, data["image"])
        return columns(data["index"], data["label"], logits, loss(logits, data["label"]))

    def predict(
        self, model: nn.Module, images: LabelledImages, batch_size: int, workers: WorkerSettings, ranks: Ranks
    ) -> AnyPredictions:
        """Predicts each image; the same on every rank."""
        reader = ImageReader(images, EvalTransform(self.preprocessing), 0)
        settings = replace(workers, collate=stacked)
        batches = EvalLoader(reader, len(reader), batch_size, settings, ranks)
        parts = [self.judged(model, batch.data) for batch in batches]
        return (gather_multilabel if self.multi_label else gather)(parts, self.num_classes, ranks)


def mean_of_two(one: Tensor, other: Tensor, multi_label: bool) -> Tensor:
    """Returns logits (B, C), float64, whose probabilities are the means of those of ``one`` and ``other``.

    Computed from logarithms, so that a probability near 0 or 1 keeps its digits.
    """
    one, other = one.double(), other.double()
    if not multi_label:
        return torch.logaddexp(one.log_softmax(1), other.log_softmax(1)) - torch.log(torch.tensor(2.0).double())
    yes = torch.logaddexp(F.logsigmoid(one), F.logsigmoid(other))
    return yes - torch.logaddexp(F.logsigmoid(-one), F.logsigmoid(-other))
