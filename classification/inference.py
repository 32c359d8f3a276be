"""From decoded pictures to what a model says of them: the same path in training's evaluations, evaluate and predict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import default_collate

from classification.augmentation.transforms import EvalTransform
from classification.losses.multi_label import binary_cross_entropy
from classification.losses.single_label import cross_entropy
from classification.metrics.predictions import AnyPredictions, gather, gather_multilabel, multilabel_rows, rows
from engine.data.loaders import EvalLoader
from engine.data.workers import WorkerSettings
from engine.datasets.dataset import PictureReader
from engine.datasets.labelled import LabelledPictures
from engine.distributed.ranks import Ranks
from engine.images.preprocessing import Preprocessing


class Inference:
    """How a model of ``num_classes`` classes is asked; ``tta`` is `evaluation.tta`."""

    def __init__(
        self,
        preprocessing: Preprocessing,
        num_classes: int,
        device: torch.device,
        *,
        multi_label: bool,
        tta: str,
        channels_last: bool,
    ) -> None:
        self.preprocessing, self.num_classes, self.device = preprocessing, num_classes, device
        self.multi_label, self.tta, self.channels_last = multi_label, tta, channels_last
        self._mean, self._std = (
            torch.tensor(values, device=device).view(3, 1, 1) * 255
            for values in (preprocessing.mean, preprocessing.std)
        )

    def normalised(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) in 0 to 255 as float32, minus the mean and divided by the deviation of each channel."""
        return pictures.float().sub_(self._mean).div_(self._std)

    def laid_out(self, pictures: Tensor) -> Tensor:
        """``pictures`` in the memory layout that the model is run with."""
        return pictures.contiguous(memory_format=torch.channels_last) if self.channels_last else pictures

    def logits(self, model: nn.Module, pictures: Tensor) -> Tensor:
        """Of uint8 pictures (B, 3, H, W) on the device: (B, C), float32, or float64 with test-time augmentation."""
        inputs = self.laid_out(self.normalised(pictures))
        logits = model(inputs).float()
        if self.tta == "none":
            return logits
        return mean_of_two(logits, model(self.laid_out(inputs.flip(3))).float(), self.multi_label)

    def judged(self, model: nn.Module, batch: dict[str, Tensor]) -> Any:
        """Of a collated batch, which may lie anywhere, what :meth:`predict` gathers, on the device.

        The loss is plain cross entropy, or with several labels a picture plain binary cross entropy: smoothing, mixing
        and weights belong to training.
        """
        loss, columns = (binary_cross_entropy, multilabel_rows) if self.multi_label else (cross_entropy, rows)
        data = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
        logits = self.logits(model, data["image"])
        return columns(data["index"], data["label"], logits, loss(logits, data["label"]))

    def predict(
        self, model: nn.Module, pictures: LabelledPictures, batch_size: int, workers: WorkerSettings, ranks: Ranks
    ) -> AnyPredictions:
        """What ``model`` says of each picture; the same on every rank."""
        reader = PictureReader(pictures, EvalTransform(self.preprocessing), 0)
        batches = self.batches(reader, len(reader), batch_size, workers, ranks)
        parts = [self.judged(model, batch) for batch in batches]
        return (gather_multilabel if self.multi_label else gather)(parts, self.num_classes, ranks)

    @staticmethod
    def batches(
        reader: Any, num_samples: int, batch_size: int, workers: WorkerSettings, ranks: Ranks
    ) -> Iterator[dict[str, Any]]:
        """This rank's share of the samples, collated."""
        settings = replace(workers, collate=default_collate)
        for batch in EvalLoader(reader, num_samples, batch_size, settings, ranks):
            yield batch.data


def mean_of_two(one: Tensor, other: Tensor, multi_label: bool) -> Tensor:
    """Logits (B, C), float64, whose probabilities are the means of those of ``one`` and ``other``.

    Computed from logarithms, so that a probability near 0 or 1 keeps its digits.
    """
    one, other = one.double(), other.double()
    if not multi_label:
        return torch.logaddexp(one.log_softmax(1), other.log_softmax(1)) - torch.log(torch.tensor(2.0).double())
    yes = torch.logaddexp(F.logsigmoid(one), F.logsigmoid(other))
    return yes - torch.logaddexp(F.logsigmoid(-one), F.logsigmoid(-other))
