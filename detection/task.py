"""Detection as a task of the training loop: images with boxes, model, matching, losses and COCO's figures."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from detection.augmentation.transforms import TrainReader
from detection.boxes.losses import detection_loss
from detection.boxes.matching import match
from detection.config import DetectionConfig
from detection.data.annotations import AnnotatedImages, digest
from detection.data.open import described, look_first, open_images, prepare_on_all
from detection.data.sample import collate
from detection.detector import Detector
from detection.model.unused_parameters import first_pass
from detection.report.coco_metrics import evaluate_on_main
from detection.report.confusion import confuse
from detection.report.drawing import training_sheet
from detection.report.figures import board_curves, board_images
from detection.report.metric_names import MEASURED
from engine.data.batch_plan import Draw, NaturalOrder
from engine.distributed.ranks import Ranks
from engine.images.image_io import ImageArray
from engine.images.reading import worker_settings
from engine.task.task import Evaluated

log = logging.getLogger(__name__)

SHOWN = 16
"""Training images on the sheet that a run begins with."""


class DetectionTask:
    """See :class:`engine.task.task.Task`."""

    name = "detection"
    metrics = MEASURED
    slot_multiple = 1

    def __init__(self, config: DetectionConfig, ranks: Ranks) -> None:
        data, seed = config.data, config.experiment.seed
        for question in config.questions() if ranks.is_main else ():
            log.warning("%s", question)
        prepare_on_all(data, ranks)
        opened = {split: ranks.from_main(partial(open_images, data, split)) for split in ("train", "val")}
        ranks.from_main(partial(look_first, opened, data, config.augmentation.min_box_pixels))
        images = opened["train"]
        self._config, self._device = config, ranks.device
        self._opened: dict[str, AnnotatedImages] = opened
        self._known = images.annotations
        self._detector = Detector(config, self._known.classes, ranks)
        self.model: nn.Module = self._detector.model
        preprocessing = self._detector.preprocessing
        first_pass(self._detector.model, preprocessing.size, ranks.device)
        self.train_data = TrainReader(images, preprocessing, config.augmentation, seed)
        self.train_order = NaturalOrder(len(images), seed)
        self.drop_last = data.drop_last
        self.workers = worker_settings(data, ranks, collate)
        for split in opened:
            log.info("data: %s", described(split, opened[split]))

    def training_step(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Computes mean losses over a micro-batch's images; ``batch`` is of :func:`detection.data.sample.collate`."""
        logits, codes, priors = self._detector.forward(model, batch["image"])
        boxes, labels, mask, ignored = (batch[name] for name in ("boxes", "labels", "mask", "ignored"))
        matches = match(priors, boxes, labels, mask, ignored, self._config.detection.matching)
        return detection_loss(logits, codes, priors, matches, self._config.loss)

    def evaluate(self, model: nn.Module, split: str, ranks: Ranks) -> Evaluated:
        if split not in self._opened:
            self._opened[split] = ranks.from_main(partial(open_images, self._config.data, split))
        images = self._opened[split]
        predictions = self._detector.predict(model, images, ranks)
        known = images.annotations
        result = evaluate_on_main(predictions, known, ranks)
        return Evaluated(
            result.metrics,
            draw=lambda: board_images(result, confuse(predictions, known), predictions, images),
            curves=lambda: board_curves(result, known.classes),
        )

    def previews(self) -> Mapping[str, ImageArray]:
        """Draws the first training images as the model sees them, with their boxes."""
        draws = [Draw(int(index), 0, position) for position, index in enumerate(self.train_order(0)[:SHOWN])]
        samples = [self.workers.sample(self.train_data, draw) for draw in draws]
        return {"train_samples": training_sheet(samples, self._known.classes)}

    def example(self) -> tuple[Tensor, ...]:
        return (torch.zeros(1, 3, *self._detector.preprocessing.size, device=self._device),)

    def metadata(self) -> dict[str, Any]:
        known = {split: self._opened[split].annotations for split in ("train", "val")}
        return {
            "classes": self._known.classes,
            "category_ids": self._known.category_ids,
            "images": {split: len(own) for split, own in known.items()},
            "objects": {split: int((~own.crowd).sum()) for split, own in known.items()},
            "digest_of_annotations": self._digests,
            "preprocessing": asdict(self._detector.preprocessing),
        }

    @cached_property
    def _digests(self) -> dict[str, str]:
        return {split: digest(self._opened[split]) for split in ("train", "val")}
