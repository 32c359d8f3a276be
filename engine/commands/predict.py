"""Predictions of a trained model for image files, on any number of ranks, from what the user typed to results."""

from __future__ import annotations

import logging
import os
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.commands.evaluate import with_experiment
from engine.commands.named_files import find_images
from engine.data.loaders import EvalLoader
from engine.data.names import Names
from engine.devices.precision import resolve_precision
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.images.reading import ImageFileReader, worker_settings
from engine.task.experiment import Experiment
from engine.task.inference import Answers, ImageInference, Prediction, inference_mode
from engine.task.spec import TaskSpec

log = logging.getLogger(__name__)

NAMED = 5
"""Unreadable images that the log names."""


def run_prediction(spec: TaskSpec, arguments: Namespace) -> int:
    """Asks a trained model about images and writes its answers; returns the exit code.

    Args:
        arguments: What :func:`engine.commands.arguments.parse_predict_arguments` returns.

    Raises:
        UserError: experiment, checkpoint, settings, paths or output are not as they should be, or no image is readable.
    """
    assert spec.prediction is not None, "a task with this command says what it does"
    prediction = spec.prediction(arguments)

    def work(experiment: Experiment[Any], ranks: Ranks) -> None:
        names, files = ranks.from_main(partial(_find, arguments, prediction))
        inference: Any = spec.inference(experiment, ranks)
        answers = ask(inference, prediction, names, files, experiment, ranks)
        if len(answers.faults) == len(files):
            hint = f"; relative paths in .csv files start from --root, {arguments.root.absolute()}"
            tables = any(text.lower().endswith(".csv") for text in arguments.images)
            first = f"the first: {answers.faults[0]}{hint * tables}"
            raise UserError(f"--images: none of the {len(files)} images can be read; {first}")
        if ranks.is_main:
            _tell(answers, prediction.faults_in)
        prediction.write(inference, answers, ranks)

    return with_experiment(spec, arguments, work)


def _find(arguments: Namespace, prediction: Prediction) -> tuple[Names, Names]:
    """Names and files of the images that the command line names, if their answers may be written."""
    found = find_images(arguments.images, arguments.path_column, arguments.root, arguments.delimiter)
    prediction.check_output([*map(Path, arguments.images), *(file for _, file in found)])
    return Names(name for name, _ in found), Names(os.fspath(file) for _, file in found)


def ask(
    inference: ImageInference,
    prediction: Prediction,
    names: Names,
    files: Names,
    experiment: Experiment[Any],
    ranks: Ranks,
) -> Answers:
    """Asks the model about each file, every rank about its share; the same for any number of ranks."""
    config = experiment.config
    reader = ImageFileReader(files, inference.transform)
    settings, sizes = worker_settings(config.data, ranks), np.zeros((len(files), 2), np.int64)
    parts: list[Tensor] = []
    faults: dict[int, str] = {}
    with inference_mode(inference.model, resolve_precision(config.training.precision, ranks.device)):
        for batch in EvalLoader(reader, len(files), config.evaluation.batch_size, settings, ranks):
            sizes[batch.indices] = batch.data["size"].numpy()
            here = batch.data.pop("fault")
            faults |= {int(i): fault for i, fault in zip(batch.indices, here, strict=True) if fault}
            parts.append(prediction.rows(inference, batch.data))
        width = max(ranks.gather_counts(parts[0].shape[1] if parts else 0))
        empty = torch.empty(0, width, dtype=torch.float64, device=ranks.device)
        rows = ranks.gather_rows(torch.cat([empty, *(part.to(ranks.device) for part in parts)])).cpu().numpy()
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    faults = dict(sorted(fault for part in ranks.gather(faults) for fault in part.items()))
    rows = rows[~np.isin(rows[:, 0], [*faults])]
    return Answers(names, files, rows, ranks.sum_(torch.from_numpy(sizes).to(ranks.device)).cpu().numpy(), faults)


def _tell(answers: Answers, elsewhere: str) -> None:
    """Logs how many images are left out, and the first few; ``elsewhere`` has all."""
    for fault in list(answers.faults.values())[:NAMED]:
        log.warning("left out: %s", fault)
    if answers.faults:
        text = "%d of %d images cannot be read; %s has all"
        log.warning(text, len(answers.faults), len(answers.files), elsewhere)
