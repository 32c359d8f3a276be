"""A trained detector for other runtimes: from 8-bit images to boxes."""

from __future__ import annotations

from contextlib import suppress
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor, nn

from detection.boxes.alternatives import departure
from detection.boxes.boxes import decode
from detection.boxes.postprocess import Detections, Suppress, class_scores, suppress_at_once
from detection.data.open import open_images
from detection.detector import Detector
from detection.inference import DetectionInference
from engine.errors import UserError
from engine.exported.exportable import Differs, Exportable, Outputs, Runtime, drawn_images, image_input

DETECTIONS = ("boxes", "scores", "labels", "counts")
"""Outputs, in the order of :class:`detection.boxes.postprocess.Detections`."""


class ExportedDetector(nn.Module):
    """Maps uint8 images (B, 3, H, W) to boxes (B, D, 4), scores, labels (B, D) and counts (B,).

    They are those of :class:`detection.boxes.postprocess.Detections`.
    """

    def __init__(self, detector: Detector, how: Suppress | None) -> None:
        super().__init__()
        self.model, self._detector, self._suppress = detector.model, detector, how

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        found = self._detector.detect(self.model, images, self._suppress)
        return found.boxes, found.scores, found.labels, found.counts


class RawDetector(nn.Module):
    """Maps uint8 images (B, 3, H, W) to what comes before decoding: see :class:`detection.model.ssd.SSDOutput`."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.model, self._detector = detector.model, detector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, codes, priors = self._detector.forward(self.model, images)
        return logits, codes, priors


def exportable(inference: DetectionInference, runtime: Runtime, raw: bool) -> Exportable:
    """Makes a trained detector ready for an exporter; ``raw``: without decoding and suppression."""
    detector, config = inference.detector, inference.config
    preprocessing, post = detector.preprocessing, config.detection.postprocess
    outputs: tuple[str, ...]
    module: nn.Module
    reference: nn.Module
    if raw:
        module = reference = RawDetector(detector)
        outputs = ("logits", "codes", "priors")
    else:
        module = ExportedDetector(detector, _suppression(runtime, len(inference.classes)))
        reference = ExportedDetector(detector, None)
        outputs = DETECTIONS

    opened = cache(lambda: open_images(config.data, "val"))

    def samples(count: int) -> tuple[Tensor]:
        images = torch.from_numpy(drawn_images(count, preprocessing))
        with suppress(UserError, OSError):
            held_out = opened()
            for row in range(min(count, len(held_out))):
                if row % 4 != 1:  # drawn_images leaves these blank: images on which nothing is to be found
                    images[row] = inference.transform(held_out.image(row))
        return (images,)

    def compare(inputs: tuple[Tensor, ...], outputs: Outputs, tolerance: float) -> float:
        """Ties of scores may be broken in another way: see :mod:`detection.boxes.alternatives`."""
        found = Detections(
            *(torch.from_numpy(np.array(outputs[name])) for name in ("boxes", "scores", "labels", "counts"))
        )
        logits, codes, priors = detector.forward(detector.model, *inputs)
        scores, boxes = class_scores(logits, config.loss.sigmoid), decode(codes.float(), priors).clamp(0, 1)
        difference, fault = departure(found, scores, boxes, post, tolerance)
        if fault:
            raise Differs(fault)
        return difference

    from detection.boxes.other_runtimes import onnx_translations

    return Exportable(
        kind="boxes",
        module=module.eval(),
        reference=reference.eval(),
        network=detector.model,
        inputs=("images",),
        outputs=outputs,
        samples=samples,
        description={
            **image_input(preprocessing),
            "classes": inference.classes,
            "category_ids": inference.category_ids,
            "suppressed": not raw,
            "score_threshold": post.score_threshold,
            "nms_iou": post.nms_iou,
            "detections": post.detections,
            "scores": "sigmoid" if config.loss.sigmoid else "softmax, of whose logits the first is the background's",
        },
        model_name=config.detection.backbone,
        translations=onnx_translations,
        compare=None if raw else torch.no_grad()(compare),
    )


def _suppression(runtime: Runtime, classes: int) -> Suppress:
    from detection.boxes.other_runtimes import suppress_by_operator, suppress_plainly

    if runtime == "onnx":
        return partial(suppress_by_operator, classes=classes)
    return suppress_plainly if runtime == "plain" else suppress_at_once
