"""A model with what it takes to use it: from 8-bit pictures to boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detection.augmentation.transforms import EvalReader, EvalTransform
from detection.boxes.postprocess import Detections, class_scores, postprocess
from detection.config import DetectionConfig
from detection.data.annotations import AnnotatedPictures
from detection.data.sections import CommonData
from detection.model.ssd import SSD, SSDOutput, build_detector
from detection.report.predictions import Predictions, gather, rows
from engine.config.training import FinetuneConfig
from engine.data.loaders import EvalLoader
from engine.data.workers import WorkerSettings, resolve_workers
from engine.devices.kinds import device_kind
from engine.devices.memory_layout import uses_channels_last
from engine.distributed.ranks import Ranks
from engine.images.preprocessing import resolve_preprocessing
from engine.model.pretrained import build_alike

PRIOR_PROBABILITY = 0.01
"""What each class starts at where it is a sigmoid of its own (arXiv:1708.02002, section 4.1)."""


class Detector:
    """The configured model on the ranks' device, its input and its output.

    Its methods are given the model, which may be this one wrapped for training, or its moving average.

    Args:
        classes: Names of the classes, in the order of their numbers.
    """

    def __init__(self, config: DetectionConfig, classes: Sequence[str], ranks: Ranks) -> None:
        self._config, self._device = config, ranks.device
        self._sigmoid = config.loss.sigmoid
        self.preprocessing = resolve_preprocessing(config.data, config.detection.timm_name)
        self.transform = EvalTransform(self.preprocessing.size, self.preprocessing.interpolation)
        self._mean, self._std = (
            torch.tensor(values, device=ranks.device).view(3, 1, 1) * 255
            for values in (self.preprocessing.mean, self.preprocessing.std)
        )
        outputs, start = (len(classes), PRIOR_PROBABILITY) if self._sigmoid else (len(classes) + 1, None)

        def build(finetune: FinetuneConfig) -> SSD:
            return build_detector(config.detection, finetune, outputs, self.preprocessing.size, start, classes)

        model = build_alike(build, config.finetune, ranks).to(ranks.device)
        self._channels_last = uses_channels_last(config.training.channels_last, model)
        self.model = model.to(memory_format=torch.channels_last) if self._channels_last else model

    def forward(self, model: nn.Module, pictures: Tensor) -> SSDOutput:
        """What ``model`` says of uint8 pictures (B, 3, H, W) on its device."""
        pictures = pictures.float().sub_(self._mean).div_(self._std)
        if self._channels_last:
            pictures = pictures.contiguous(memory_format=torch.channels_last)
        return model(pictures)

    def detect(self, model: nn.Module, pictures: Tensor) -> Detections:
        """The boxes that ``model`` finds on uint8 pictures (B, 3, H, W), which may lie anywhere."""
        output = self.forward(model, pictures.to(self._device, non_blocking=True))
        scores = class_scores(output.logits, self._sigmoid)
        return postprocess(scores, output.codes, output.priors, self._config.detection.postprocess)

    def predict(self, model: nn.Module, pictures: AnnotatedPictures, ranks: Ranks) -> Predictions:
        """What ``model`` finds on all of ``pictures``, on every rank: the same for any number of them."""
        reader = EvalReader(pictures, self.transform)
        settings, sizes = reading(self._config.data, ranks), pictures.annotations.sizes
        found = [
            (batch.data["index"], self.detect(model, batch.data["image"]))
            for batch in EvalLoader(reader, len(reader), self._config.evaluation.batch_size, settings, ranks)
        ]
        return gather([rows(indices, detections, sizes) for indices, detections in found], len(reader), ranks)


def reading(data: CommonData, ranks: Ranks, **collate: Callable[[list[Any]], Any]) -> WorkerSettings:
    """How this rank reads pictures; ``collate`` if batches are not to be torch's own."""
    return WorkerSettings(
        workers=resolve_workers(data.workers, ranks.layout),
        prefetch=data.prefetch,
        pin_memory=device_kind(ranks.device).pin_memory,
        multiprocessing_context=data.multiprocessing_context,
        **collate,
    )
