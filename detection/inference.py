"""A trained detector, built from its checkpoint alone: no data of the training need be there."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.boxes.postprocess import Detections
from detection.config import DetectionConfig
from detection.data.annotations import AnnotatedImages, Annotations, digest, other_names
from detection.data.open import open_images, prepare_on_all
from detection.detector import Detector
from detection.report.coco_metrics import evaluate_on_main
from detection.report.report import write_report
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.exported.deployed import DeployedModel
from engine.task.experiment import Experiment
from engine.task.inference import Measured

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundObjects:
    """What a detector finds on an image: D objects, the most certain first."""

    classes: list[str]
    scores: NDArray[np.float64]
    """(D,) in [0, 1]."""
    boxes: NDArray[np.float64]
    """(D, 4) xyxy in pixels of the image as it was given."""


class ImageDetector:
    """What asks a detector, wherever it runs."""

    classes: list[str]
    category_ids: list[int | str]
    """Of the classes, in the data set."""

    def detect(self, images: Tensor) -> Detections:
        """Finds objects on uint8 images (B, 3, H, W), which may lie anywhere."""
        raise NotImplementedError

    def answers(self, images: Tensor, sizes: Tensor) -> list[FoundObjects]:
        """See :class:`engine.task.inference.ImageInference`."""
        return [
            FoundObjects(
                [self.classes[label] for label in labels.tolist()],
                scores.double().numpy(),
                (boxes.double() * size.repeat(2)).numpy(),
            )
            for (boxes, scores, labels), size in zip(self.detect(images).images(), sizes, strict=True)
        ]


class DeployedDetector(ImageDetector):
    """An exported detector."""

    def __init__(self, deployed: DeployedModel) -> None:
        self._deployed, description = deployed, deployed.description
        if not description["suppressed"]:
            raise UserError("the exported detector ends before suppression; export it without --raw")
        self.model, self.transform, self.inputs = deployed.model, deployed.transform, deployed.inputs
        self.classes, self.category_ids = description["classes"], description["category_ids"]

    def detect(self, images: Tensor) -> Detections:
        found = self._deployed(images)
        names = ("boxes", "scores", "labels", "counts")
        return Detections(*(torch.from_numpy(found[name]) for name in names))


class DetectionInference(ImageDetector):
    """See :class:`engine.task.inference.ImageInference`."""

    def __init__(self, experiment: Experiment[DetectionConfig], ranks: Ranks) -> None:
        self._experiment, self.config = experiment, experiment.config
        self.classes = experiment.saved["metadata"]["classes"]
        self.category_ids = experiment.saved["metadata"]["category_ids"]
        self.detector = Detector(experiment.config, self.classes, ranks)
        self.model, self.transform, self.inputs = self.detector.model, self.detector.transform, self.detector.inputs
        experiment.load_into(self.model)

    def detect(self, images: Tensor) -> Detections:
        return self.detector.detect(self.model, images)

    def evaluate(self, split: str, ranks: Ranks) -> Measured:
        experiment = self._experiment
        prepare_on_all(experiment.config.data, ranks)
        images = ranks.from_main(partial(open_images, experiment.config.data, split))
        self._require_same_classes(images.annotations)
        if ranks.is_main:
            _warn_of_changed_data(experiment, split, images)
            for question in experiment.config.questions():
                log.warning("%s", question)
        predictions = self.detector.predict(self.model, images, ranks)
        result = evaluate_on_main(predictions, images.annotations, ranks)
        if result.metrics["AP50"] == 0 and ranks.is_main:
            log.warning(
                "AP50 is 0: not one object was found; was it trained enough, and on boxes as those of %s?", split
            )

        def write(folder: Path, title: str) -> None:
            write_report(folder, title, result, predictions, images)

        then = experiment.saved["metadata"].get("digest_of_annotations", {}).get(split)
        return Measured(result.metrics, write, ranks.is_main and experiment.elsewhere and digest(images) == then)

    def _require_same_classes(self, known: Annotations) -> None:
        theirs = dict(zip(self.category_ids, self.classes, strict=True))
        different, shown = other_names(theirs, known.names, "there")
        if different:
            raise UserError(f"data: {self._experiment.checkpoint} was trained on other categories: {shown}")


def _warn_of_changed_data(experiment: Experiment[DetectionConfig], split: str, images: AnnotatedImages) -> None:
    """Of other images or boxes than training had, unless the user asks for others."""
    then = experiment.saved["metadata"].get("digest_of_annotations", {}).get(split)  # older ones lack them
    chosen = any(change.startswith(("data.root=", f"data.{split}")) for change in experiment.changes)
    if then is not None and not chosen and digest(images) != then:
        log.warning("data: images or annotations of %s are not those that training had", split)
