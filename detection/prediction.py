"""Detections on images of which nothing is known, from a trained model to files."""

from __future__ import annotations

import json
import logging
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from detection.inference import ImageDetector
from detection.report.drawing import draw
from detection.report.figures import detections_on
from detection.report.predictions import Predictions, as_annotations, from_rows, rows
from engine.commands.named_files import DETECTIONS, DRAWINGS
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.files import check_writable, shown, write_atomic
from engine.images.image_io import write_image
from engine.images.lazy_image import load_image
from engine.task.inference import Answers
from engine.text import csv_bytes

log = logging.getLogger(__name__)

UNREADABLE = "unreadable.csv"
"""The file beside the detections that names images which cannot be read, if there are any."""
LONGEST_STEM = 40
"""Characters of an image's name in that of its drawing: a file's name has at most 255 bytes."""


class DrawnPrediction:
    """See :class:`engine.task.inference.Prediction`."""

    faults_in = UNREADABLE

    def __init__(self, arguments: Namespace) -> None:
        self._output: Path = arguments.output

    def check_output(self, inputs: Sequence[Path]) -> None:
        """Raises a :class:`UserError` if the output holds what a prediction writes: old and new would be mixed."""
        check_writable(self._output, "--output")
        for path in (self._output / DETECTIONS, self._output / DRAWINGS, self._output / UNREADABLE):
            if path.exists() and not (path.is_dir() and not any(path.iterdir())):
                raise UserError(f"--output: {path} is there already; remove it or name another folder")

    def rows(self, inference: ImageDetector, batch: dict[str, Tensor]) -> Tensor:
        return rows(batch["index"], inference.detect(batch["image"]), batch["size"])

    def write(self, inference: ImageDetector, answers: Answers, ranks: Ranks) -> None:
        """Has rank 0 write the file of all detections, then every rank draw its share.

        The file comes first: by it, drawings are known for what they are, those of a prediction that was stopped too.
        A drawn image is called after its number, which is its id in the file, and the beginning of its name.
        """
        found = from_rows(answers.rows, len(answers.files))
        if ranks.is_main:
            self._output.mkdir(parents=True, exist_ok=True)
            if faults := answers.faults:
                named = [[answers.names[index], fault] for index, fault in faults.items()]
                write_atomic(self._output / UNREADABLE, csv_bytes(["path", "error"], named))
            write_atomic(self._output / DETECTIONS, json.dumps(document(found, answers, inference)) + "\n")
        for index in answers.readable[ranks.rank :: ranks.world_size]:
            ranks.heartbeat.tick()
            path = Path(answers.files[index])
            image = load_image(path)
            drawn = draw(image.pixels(), detections_on(found, index, image.size), inference.classes)
            write_image(self._output / DRAWINGS / f"{index + 1:05d}_{path.stem[:LONGEST_STEM]}.png", drawn)
        if ranks.is_main:
            count = len(answers.readable)
            log.info("%d images, %d detections: %s", count, len(found.scores), shown(self._output))


def document(found: Predictions, answers: Answers, inference: ImageDetector) -> dict[str, list[dict[str, Any]]]:
    """Builds a COCO file with scores: images numbered from 1 in the order given, classes with the data set's ids."""
    ids, sizes = inference.category_ids, answers.sizes.tolist()
    return {
        "images": [
            {"id": i + 1, "file_name": answers.files[i], "width": sizes[i][0], "height": sizes[i][1]}
            for i in answers.readable
        ],
        "annotations": as_annotations(found, range(1, len(answers.files) + 1), ids),
        "categories": [{"id": i, "name": name} for i, name in zip(ids, inference.classes, strict=True)],
    }
