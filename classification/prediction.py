"""The table that classification.predict writes: of each image what the model says, or why it cannot be read."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from classification.inference import ImageClassifier
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.files import check_writable, is_stream, shown, write_atomic
from engine.task.inference import Answers
from engine.text import csv_bytes

log = logging.getLogger(__name__)

FIRST_COLUMN = "path"
"""Of the table that is written."""
SEPARATOR = "|"
"""Between the classes of an image with several."""


class TablePrediction:
    """See :class:`engine.task.inference.Prediction`."""

    faults_in = "column `error` of the table"

    def __init__(self, arguments: Namespace) -> None:
        self._output: Path = arguments.output
        self._top_k: int = arguments.top_k

    def check_output(self, inputs: Sequence[Path]) -> None:
        output = self._output
        if output.is_dir():
            raise UserError(f"--output: {output} is a folder; name a file, such as prediction.csv")
        if is_stream(output):
            return
        if output.exists():
            alike = [path for path in inputs if path.name == output.name]  # whose links alone are followed
            if any(path.exists() and output.samefile(path) for path in alike):
                raise UserError(f"--output: {output} is one of --images and would be overwritten; name another file")
            if not _holds_predictions(output):
                raise UserError(f"--output: {output} is there already and holds no predictions; name another file")
        check_writable(output.absolute().parent, "--output")

    def rows(self, inference: ImageClassifier, batch: dict[str, Tensor]) -> Tensor:
        """Returns the number of the image, then each class's probability where there may be several.

        Else, the numbers of the ``top_k`` most probable classes, best first, and their probabilities.
        """
        probabilities = inference.probabilities(batch["image"])
        index = batch["index"].to(probabilities)[:, None]
        if inference.multi_label:
            return torch.cat([index, probabilities], dim=1)
        probabilities, top = probabilities.topk(min(self._top_k, len(inference.classes)), dim=1)
        return torch.cat([index, top.double(), probabilities], dim=1)

    def write(self, inference: ImageClassifier, answers: Answers, ranks: Ranks) -> None:
        if not ranks.is_main:
            return
        self._output.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self._output, csv_bytes(*_table(inference, answers)))
        log.info("predictions of %d images: %s", len(answers.readable), shown(self._output))


def _holds_predictions(path: Path) -> bool:
    """Returns whether a file begins as the tables written here do; those, and empty files, are written anew."""
    try:
        with path.open("rb") as file:
            return file.read(len(FIRST_COLUMN) + 1).decode(errors="replace") in ("", f"{FIRST_COLUMN},")
    except OSError as error:
        raise UserError(f"--output: {path} cannot be read: {error.strerror}; name another file") from None


def _table(inference: ImageClassifier, answers: Answers) -> tuple[list[str], list[list[str]]]:
    """Makes the table's heading and rows, in the order of the images.

    With one label an image, they have the most probable classes with their probabilities, best first; with several,
    those from their thresholds on, and the probability of every class.
    """
    names, rows = inference.classes, {}
    if inference.multi_label:
        heading = ["classes", "error", *(f"probability_{name}" for name in names)]
        for index, *values in answers.rows.tolist():
            said = SEPARATOR.join(names[c] for c in np.flatnonzero(values >= inference.thresholds))
            rows[int(index)] = [said, "", *(f"{value:.6f}" for value in values)]
    else:
        count = answers.rows.shape[1] // 2
        places = [f"{kind}_{place}" for place in range(1, count + 1) for kind in ("class", "probability")]
        heading = ["class", "probability", *places, "error"]
        for index, *values in answers.rows.tolist():
            pairs = zip(values[:count], values[count:], strict=True)
            cells = [cell for c, p in pairs for cell in (names[int(c)], f"{p:.6f}")]
            rows[int(index)] = [*cells[:2], *cells, ""]
    for index, fault in answers.faults.items():
        rows[index] = [fault if column == "error" else "" for column in heading]
    return [FIRST_COLUMN, *heading], [[answers.names[index], *rows[index]] for index in sorted(rows)]
