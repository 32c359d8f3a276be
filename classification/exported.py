"""A trained classifier for other runtimes: from 8-bit images to logits and probabilities."""

from __future__ import annotations

from contextlib import suppress
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from classification.classifier import Classifier
from classification.inference import ClassificationInference
from classification.losses.multi_label import binary_cross_entropy
from classification.losses.single_label import cross_entropy
from classification.metrics.measure import measure
from classification.metrics.names import measured
from classification.metrics.predictions import gather, gather_multilabel, multilabel_rows, rows
from engine.datasets.dataset import open_images
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.exported.exportable import Exportable, Run, Runtime, drawn_images, image_input

BATCH = 32
"""Images that accuracy is measured on at once."""


class ExportedClassifier(nn.Module):
    """Maps uint8 images (B, 3, H, W) to logits and probabilities, (B, C) float32 each."""

    def __init__(self, model: nn.Module, classifier: Classifier) -> None:
        super().__init__()
        self.model, self._classifier = model, classifier

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self._classifier.logits(self.model, images).float()
        return logits, logits.sigmoid() if self._classifier.multi_label else logits.softmax(1)


def exportable(inference: ClassificationInference, runtime: Runtime, raw: bool) -> Exportable:
    """Makes a trained classifier ready for an exporter.

    Raises:
        UserError: ``raw``, which says nothing here.
    """
    if raw:
        raise UserError("--raw: is for detectors; a classifier has its logits among the outputs anyway")
    preprocessing, config = inference.classifier.preprocessing, inference.config

    opened = cache(lambda: open_images(config.data, "val", inference.classes))

    def samples(count: int) -> tuple[Tensor]:
        images = torch.from_numpy(drawn_images(count, preprocessing))
        with suppress(UserError, OSError):
            held_out = opened()
            for row in range(min(count, len(held_out))):
                images[row] = inference.transform(held_out.image(row))
        return (images,)

    module = ExportedClassifier(inference.model, inference.classifier).eval()
    return Exportable(
        kind="classes",
        module=module,
        reference=module,
        network=inference.model,
        inputs=("images",),
        outputs=("logits", "probabilities"),
        samples=samples,
        description={
            **image_input(preprocessing),
            "classes": inference.classes,
            "multi_label": inference.multi_label,
            "thresholds": inference.thresholds.tolist(),
            "tta": config.evaluation.tta,
        },
        model_name=config.model.name,
        accuracy=partial(_accuracy, inference),
    )


def _accuracy(inference: ClassificationInference, run: Run) -> dict[str, float]:
    """Measures the metric that the run was judged by, on all of val. Raises a UserError if it is not there."""
    config = inference.config
    parts: list[Any] = []
    images = open_images(config.data, "val", inference.classes)
    loss, columns = (binary_cross_entropy, multilabel_rows) if inference.multi_label else (cross_entropy, rows)
    for first in range(0, len(images), BATCH):
        index = torch.arange(first, min(first + BATCH, len(images)))
        pixels = torch.stack([inference.transform(images.image(i)) for i in index.tolist()])
        logits = torch.from_numpy(run([pixels.numpy()])["logits"])
        labels = torch.from_numpy(images.labels[index.numpy()])
        labels = labels.float() if inference.multi_label else labels
        parts.append(columns(index, labels, logits, loss(logits, labels)))
    ranks = Ranks(Layout(), torch.device("cpu"))
    predictions = (gather_multilabel if inference.multi_label else gather)(parts, len(inference.classes), ranks)
    values = measure(predictions, config.evaluation.thresholds, inference.findings)
    name, _ = measured(inference.multi_label, config.evaluation.thresholds).deciding(config)
    return {name: values[name]}
