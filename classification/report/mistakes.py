"""The mistakes worth looking at: what the model was surest of, and wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from classification.metrics.predictions import AnyPredictions, MultiLabelPredictions, Predictions
from engine.datasets.labelled import LabelledImages
from engine.errors import UserError
from engine.images.image_io import ImageArray
from engine.plots.figures import Tile, sheet

SHOWN = 24
"""Mistakes on a report's sheet."""
COLUMNS = 6
_TRUE, _WRONG, _PLAIN = "#1a7f37", "#b3261e", "#555555"


def worst_mistakes(predictions: AnyPredictions, thresholds: NDArray[np.float64] | None, most: int) -> NDArray[np.int64]:
    """Numbers of the samples of the worst mistakes, worst first, at most ``most``.

    With one label an image, the wrong predictions with the highest probability; with several, of the images with any
    label said wrongly at ``thresholds`` (C,), those with the highest loss.
    """
    if isinstance(predictions, Predictions):
        wrong = np.flatnonzero(predictions.top[:, 0] != predictions.labels)
        badness = predictions.probabilities[wrong, 0]
    else:
        assert thresholds is not None
        wrong = np.flatnonzero(((predictions.probabilities >= thresholds) != predictions.labels).any(axis=1))
        badness = predictions.losses[wrong]
    return wrong[np.argsort(-badness, kind="stable")[:most]]


def mistakes_sheet(
    mistakes: Sequence[int] | NDArray[np.int64],
    predictions: AnyPredictions,
    thresholds: NDArray[np.float64] | None,
    images: LabelledImages,
) -> ImageArray:
    """The images of ``mistakes``, each with what is true and what was said beneath."""
    tiles = []
    for place, index in enumerate(mistakes, start=1):
        lines = (
            _caption(predictions, index, images.classes)
            if isinstance(predictions, Predictions)
            else _labels_caption(predictions, index, images.classes, thresholds)
        )
        tiles.append(Tile(_image(images, int(index)), [*lines, (f"{place}: {images.name(int(index))}", _PLAIN)]))
    return sheet(tiles, COLUMNS)


def _caption(predictions: Predictions, index: int, classes: list[str]) -> list[tuple[str, str]]:
    said, probability = predictions.top[index, 0], predictions.probabilities[index, 0]
    return [
        (f"is {classes[predictions.labels[index]]}", _TRUE),
        (f"{probability:.1%} {classes[said]}", _WRONG),
    ]


def _labels_caption(
    predictions: MultiLabelPredictions, index: int, classes: list[str], thresholds: NDArray[np.float64] | None
) -> list[tuple[str, str]]:
    missed, wrong = wrong_labels(predictions, index, thresholds)

    def named(numbers: NDArray[np.int64]) -> str:
        shown = ", ".join(f"{classes[c]} {predictions.probabilities[index, c]:.2f}" for c in numbers)
        return shown or "none"

    return [(f"missed: {named(missed)}", _TRUE), (f"wrong: {named(wrong)}", _WRONG)]


def wrong_labels(
    predictions: MultiLabelPredictions, index: int, thresholds: NDArray[np.float64] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Classes that a sample has and that were not said, least probable first; and those said wrongly, surest first."""
    labels, values = predictions.labels[index], predictions.probabilities[index]
    said = values >= thresholds
    missed, wrong = np.flatnonzero(labels & ~said), np.flatnonzero(said & ~labels)
    return missed[np.argsort(values[missed], kind="stable")], wrong[np.argsort(-values[wrong], kind="stable")]


def _image(images: LabelledImages, index: int) -> Image.Image:
    """As a person would see it; grey if the file has become unreadable since it was evaluated."""
    try:
        return images.image(index)
    except UserError:
        return Image.new("RGB", (64, 64), "#cccccc")
