"""Prediction of pictures nobody has labelled: from paths to one table."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from classification.augmentation.transforms import EvalTransform
from classification.config import ClassificationConfig
from classification.trained import Trained, load_trained, reading_workers
from engine.commands.evaluate import require_writable, with_experiment
from engine.commands.experiment import Experiment
from engine.data.batch_plan import Draw
from engine.data.names import Names
from engine.datasets.named_files import listed_pictures
from engine.devices.precision import resolve_precision
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.files import shown, write_atomic
from engine.images.image_io import read_picture
from engine.text import csv_bytes
from engine.training.evaluation import inference

log = logging.getLogger(__name__)

NAMED = 5
"""Broken pictures that the log names."""
FIRST_COLUMN = "path"
"""Of the table that is written."""
SEPARATOR = "|"
"""Between the classes of a picture with several."""


@dataclass(frozen=True)
class PredictArguments:
    """What the user typed."""

    experiment: Path
    checkpoint: str
    images: Sequence[str]
    output: Path
    top_k: int
    path_column: str
    root: Path
    delimiter: str
    overrides: Sequence[str]


def run_prediction(arguments: PredictArguments) -> int:
    """Predicts and writes the table; returns the exit code.

    Raises:
        UserError: folder, checkpoint, settings, paths or output are not as they should be, or no picture can be read.
    """

    def work(experiment: Experiment[ClassificationConfig], ranks: Ranks) -> None:
        predict_pictures(experiment, ranks.from_main(partial(_listed, arguments)), arguments, ranks)

    folder, checkpoint = arguments.experiment, arguments.checkpoint
    return with_experiment(work, folder, checkpoint, ClassificationConfig, arguments.overrides)


@dataclass(frozen=True)
class Listed:
    """The N pictures to look at."""

    names: Names
    """What the table calls them."""
    files: Names

    def __len__(self) -> int:
        return len(self.files)


def _listed(arguments: PredictArguments) -> Listed:
    """The pictures that the command line names.

    Raises:
        UserError: they are not there, or the output is something else than predictions.
    """
    pictures = listed_pictures(arguments.images, arguments.path_column, arguments.root, arguments.delimiter)
    if arguments.output.is_dir():
        raise UserError(f"--output: {arguments.output} is a folder; name a file, such as prediction.csv")
    inputs = [Path(text) for text in arguments.images] + [path for _, path in pictures]
    if arguments.output.exists():
        if any(_same_file(arguments.output, path) for path in inputs):
            text = "is one of --images and would be overwritten"
            raise UserError(f"--output: {arguments.output} {text}; name another file")
        if not _holds_predictions(arguments.output):
            text = "is there already and holds no predictions"
            raise UserError(f"--output: {arguments.output} {text}; name another file")
    return Listed(Names(name for name, _ in pictures), Names(os.fspath(path) for _, path in pictures))


def _holds_predictions(path: Path) -> bool:
    """Whether a file begins as the tables that are written here do; those, and empty files, are written anew."""
    try:
        with path.open("rb") as file:
            return file.read(len(FIRST_COLUMN) + 1).decode(errors="replace") in ("", f"{FIRST_COLUMN},")
    except OSError as error:
        raise UserError(f"--output: {path} cannot be read: {error.strerror}; name another file") from None


def _same_file(output: Path, other: Path) -> bool:
    """Whether two paths lead to one file; links are only followed for files of one name, as there may be many."""
    return output.name == other.name and other.exists() and output.samefile(other)


def predict_pictures(
    experiment: Experiment[ClassificationConfig],
    pictures: Listed,
    arguments: PredictArguments,
    ranks: Ranks,
) -> None:
    """Has rank 0 write the table of ``pictures``.

    Raises:
        UserError: the output cannot be written, or none of the pictures can be read.
    """
    require_writable(arguments.output.absolute().parent, ranks, "--output")
    config, trained = experiment.config, load_trained(experiment, ranks)
    reader = FileReader(pictures.files, EvalTransform(trained.inference.preprocessing))
    workers, batch_size = reading_workers(config, ranks), config.evaluation.batch_size
    count = min(arguments.top_k, len(trained.classes))
    width = len(trained.classes) if trained.inference.multi_label else 2 * count
    parts = [torch.empty(0, 1 + width, dtype=torch.float64, device=ranks.device)]
    faults: dict[int, str] = {}
    with inference(trained.model, resolve_precision(config.training.precision, ranks.device)):
        for batch in trained.inference.batches(reader, len(pictures), batch_size, workers, ranks):
            faults |= {int(i): fault for i, fault in zip(batch["index"], batch["fault"], strict=True) if fault}
            parts.append(_said(trained, batch, count))
    table = ranks.gather_rows(torch.cat(parts)).cpu().numpy()
    broken: dict[int, str] = {}
    for text in ranks.gather(json.dumps(faults)):
        broken |= {int(index): fault for index, fault in json.loads(text).items()}
    if len(broken) == len(pictures):
        hint = f"; relative paths in .csv files start from --root, {arguments.root.absolute()}"
        listed = any(text.lower().endswith(".csv") for text in arguments.images)
        raise UserError(
            f"--images: none of the {len(pictures)} pictures can be read; the first: {broken[0]}{hint * listed}"
        )
    if ranks.is_main:
        said = table[np.argsort(table[:, 0], kind="stable"), 1:]
        content = _labels_table if trained.inference.multi_label else _classes_table
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(arguments.output, csv_bytes(*content(trained, pictures.names, said, broken)))
        _report(len(pictures), broken, arguments.output)


class FileReader:
    """Reads pictures from files. A sample is a dict of ``image``, ``index`` and ``fault``: what is wrong, or nothing.

    In the place of a picture that cannot be read stands a black one.
    """

    def __init__(self, paths: Names, transform: EvalTransform) -> None:
        self._paths = paths
        self._transform = transform

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        path, fault = Path(self._paths[draw.index]), ""
        try:
            image = self._transform(read_picture(path))
        except UserError as error:
            image, fault = self._transform(Image.new("RGB", (64, 64))), str(error)
        return {"image": image, "index": draw.index, "fault": fault}


def _said(trained: Trained, batch: dict[str, Any], count: int) -> Tensor:
    """Float64 on the device, a row a picture: its number, then each class's probability where there may be several.

    Else the numbers of the ``count`` most probable classes, best first, and their probabilities.
    """
    device = trained.inference.device
    index = batch["index"].to(device).double()[:, None]
    logits = trained.inference.logits(trained.model, batch["image"].to(device, non_blocking=True)).double()
    if trained.inference.multi_label:
        return torch.cat([index, logits.sigmoid()], dim=1)
    probabilities, top = logits.softmax(1).topk(count, dim=1)
    return torch.cat([index, top.double(), probabilities], dim=1)


def _classes_table(
    trained: Trained, names: Sequence[str], said: np.ndarray, broken: dict[int, str]
) -> tuple[list[str], list[list[str]]]:
    """``path, class, probability``, the most probable classes with theirs, best first, and ``error``."""
    count = said.shape[1] // 2
    header = [f"{kind}_{place}" for place in range(1, count + 1) for kind in ("class", "probability")]
    rows = []
    for index, (name, row) in enumerate(zip(names, said, strict=True)):
        pairs = zip(row[:count].astype(int), row[count:], strict=True)
        cells = [cell for c, p in pairs for cell in (trained.classes[c], f"{p:.6f}")]
        if index in broken:
            cells = [""] * len(cells)
        rows.append([name, *cells[:2], *cells, broken.get(index, "")])
    return [FIRST_COLUMN, "class", "probability", *header, "error"], rows


def _labels_table(
    trained: Trained, names: Sequence[str], said: np.ndarray, broken: dict[int, str]
) -> tuple[list[str], list[list[str]]]:
    """``path, classes``: those from their thresholds on, ``error``, and the probability of every class."""
    rows = []
    for index, (name, row) in enumerate(zip(names, said, strict=True)):
        classes = SEPARATOR.join(trained.classes[c] for c in np.flatnonzero(row >= trained.thresholds))
        cells = [classes, "", *(f"{value:.6f}" for value in row)]
        if index in broken:
            cells = ["", broken[index], *([""] * len(trained.classes))]
        rows.append([name, *cells])
    return [FIRST_COLUMN, "classes", "error", *(f"probability_{name}" for name in trained.classes)], rows


def _report(count: int, broken: dict[int, str], output: Path) -> None:
    for index in sorted(broken)[:NAMED]:
        log.warning("left out: %s", broken[index])
    if broken:
        log.warning("%d of %d pictures cannot be read; column `error` of the table has all", len(broken), count)
    log.info("predictions of %d pictures: %s", count - len(broken), shown(output))
