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

COLUMNS = 6
_TRUE, _WRONG, _PLAIN = "#1a7f37", "#b3261e", "#555555"

Thresholds = NDArray[np.float64]
"""With several labels an image: probability from which on a label is said, (C,)."""


def worst_mistakes(predictions: AnyPredictions, thresholds: Thresholds | None, most: int) -> list[int]:
    """Returns the numbers of at most ``most`` samples, the worst mistakes first.

    With one label an image, the wrong predictions with the highest probability; with several, of the images with any
    label said wrongly, those with the highest loss.
    """
    if isinstance(predictions, Predictions):
        wrong = np.flatnonzero(predictions.top[:, 0] != predictions.labels)
        badness = predictions.probabilities[wrong, 0]
    else:
        wrong = np.flatnonzero(((predictions.probabilities >= thresholds) != predictions.labels).any(axis=1))
        badness = predictions.losses[wrong]
    return wrong[np.argsort(-badness, kind="stable")[:most]].tolist()


def mistakes_sheet(
    mistakes: Sequence[int], predictions: AnyPredictions, thresholds: Thresholds | None, images: LabelledImages
) -> ImageArray:
    """Draws the images of ``mistakes``, each with what is true and what was said beneath."""
    tiles = []
    for place, index in enumerate(mistakes, start=1):
        if isinstance(predictions, Predictions):
            true, said = (images.classes[c] for c in (predictions.labels[index], predictions.top[index, 0]))
            lines = (f"is {true}", f"{predictions.probabilities[index, 0]:.1%} {said}")
        else:
            missed, wrong = wrong_labels(predictions, index, thresholds, images.classes, digits=2)
            lines = (f"missed: {missed or 'none'}", f"wrong: {wrong or 'none'}")
        caption = zip((*lines, f"{place}: {images.name(index)}"), (_TRUE, _WRONG, _PLAIN), strict=True)
        tiles.append(Tile(_image(images, index), list(caption)))
    return sheet(tiles, COLUMNS)


def wrong_labels(
    predictions: MultiLabelPredictions, index: int, thresholds: Thresholds | None, classes: Sequence[str], digits: int
) -> tuple[str, str]:
    """Lists, with their probabilities, classes of a sample that were not said, least probable first, and those that
    were said wrongly, surest first.
    """
    labels, values = predictions.labels[index], predictions.probabilities[index]
    said = values >= thresholds
    missed = sorted(np.flatnonzero(labels & ~said).tolist(), key=lambda c: values[c])
    wrong = sorted(np.flatnonzero(said & ~labels).tolist(), key=lambda c: -values[c])
    named = [", ".join(f"{classes[c]} {values[c]:.{digits}f}" for c in numbers) for numbers in (missed, wrong)]
    return named[0], named[1]


def _image(images: LabelledImages, index: int) -> Image.Image:
    """Reads an image as a person would see it; grey if the file has become unreadable since it was evaluated."""
    try:
        return images.image(index).pillow()
    except UserError:
        return Image.new("RGB", (64, 64), "#cccccc")
