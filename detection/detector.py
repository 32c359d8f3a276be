"""A model with what it takes to use it: from 8-bit images to boxes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detection.augmentation.transforms import EvalReader
from detection.boxes.postprocess import Detections, Suppress, class_scores, postprocess
from detection.config import DetectionConfig
from detection.data.annotations import AnnotatedImages
from detection.model.ssd import SSD, SSDOutput, build_detector
from detection.report.predictions import Predictions, gather, rows
from engine.config.training import FinetuneConfig
from engine.data.loaders import EvalLoader
from engine.devices.memory_layout import laid_out, uses_channels_last
from engine.distributed.ranks import Ranks
from engine.images.normalization import Normalization
from engine.images.preprocessing import resolve_preprocessing
from engine.images.reading import worker_settings
from engine.images.transforms import EvalTransform
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
        self.transform = EvalTransform(self.preprocessing)
        self._normalized = Normalization(self.preprocessing, ranks.device)
        outputs, start = (len(classes), PRIOR_PROBABILITY) if self._sigmoid else (len(classes) + 1, None)

        def build(finetune: FinetuneConfig) -> SSD:
            return build_detector(config.detection, finetune, outputs, self.preprocessing.size, start, classes)

        model = build_alike(build, config.finetune, ranks).to(ranks.device)
        self._channels_last = uses_channels_last(config.training.channels_last, model)
        self.model = model.to(memory_format=torch.channels_last) if self._channels_last else model

    def inputs(self, images: Tensor) -> Tensor:
        """Returns what a model is given of uint8 images (B, 3, H, W) on its device: float32, normalised."""
        return laid_out(self._normalized(images), self._channels_last)

    def forward(self, model: nn.Module, images: Tensor) -> SSDOutput:
        """Asks ``model`` about uint8 images (B, 3, H, W) on its device."""
        return model(self.inputs(images))

    def detect(self, model: nn.Module, images: Tensor, suppress: Suppress | None = None) -> Detections:
        """Finds boxes with ``model`` on uint8 images (B, 3, H, W), which may lie anywhere."""
        output = self.forward(model, images.to(self._device, non_blocking=True))
        scores = class_scores(output.logits, self._sigmoid)
        return postprocess(scores, output.codes, output.priors, self._config.detection.postprocess, suppress)

    def predict(self, model: nn.Module, images: AnnotatedImages, ranks: Ranks) -> Predictions:
        """Asks ``model`` about all of ``images``, together with all ranks: the same for any number of them."""
        reader = EvalReader(images, self.transform)
        settings, sizes = worker_settings(self._config.data, ranks), torch.from_numpy(images.annotations.sizes)
        found = [
            (batch.data["index"], self.detect(model, batch.data["image"]))
            for batch in EvalLoader(reader, len(images), self._config.evaluation.batch_size, settings, ranks)
        ]
        parts = [rows(indices, detections, sizes[indices]) for indices, detections in found]
        return gather(parts, len(images), ranks)
