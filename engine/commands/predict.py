"""Predictions of a trained model for image files, on any number of ranks, from what the user typed to results."""

from __future__ import annotations

import logging
import os
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from engine.commands.evaluate import with_experiment
from engine.commands.failure_report import FailureReport
from engine.commands.named_files import find_images
from engine.commands.session import run_session
from engine.config.run import DistributedConfig
from engine.data.loaders import EvalLoader
from engine.data.names import Names
from engine.devices.precision import resolve_precision
from engine.distributed.layout import detect_layout
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.exported.deployed import BATCH_SIZE, DeployedModel
from engine.images.reading import ImageFileReader, worker_settings
from engine.images.sections import ImageData
from engine.log import setup_logging
from engine.run_folder.used_config import is_exported
from engine.task.experiment import Experiment
from engine.task.inference import Answers, ImageInference, Prediction, inference_mode
from engine.task.spec import TaskSpec

log = logging.getLogger(__name__)

NAMED = 5
"""Unreadable images that the log names."""


@dataclass(frozen=True)
class Use:
    """How a model is asked."""

    data: ImageData
    """How images are read."""
    batch_size: int
    precision: str
    """`training.precision`."""


Load = Callable[[Ranks], tuple[ImageInference, Use]]


def run_prediction(spec: TaskSpec, arguments: Namespace) -> int:
    """Asks a trained model about images and writes its answers; returns the exit code.

    Args:
        arguments: What :func:`engine.commands.arguments.parse_predict_arguments` returns.

    Raises:
        UserError: experiment, checkpoint, settings, paths or output are not as they should be, or no image is readable.
    """
    assert spec.prediction is not None, "a task with this command says what it does"
    prediction = spec.prediction(arguments)

    def work(load: Load, ranks: Ranks) -> None:
        names, files = ranks.from_main(partial(_find, arguments, prediction))
        inference, use = load(ranks)
        answers = ask(inference, prediction, names, files, use, ranks)
        if len(answers.faults) == len(files):
            hint = f"; relative paths in .csv files start from --root, {arguments.root.absolute()}"
            tables = any(text.lower().endswith(".csv") for text in arguments.images)
            first = f"the first: {answers.faults[0]}{hint * tables}"
            raise UserError(f"--images: none of the {len(files)} images can be read; {first}")
        if ranks.is_main:
            _tell(answers, prediction.faults_in)
        prediction.write(inference, answers, ranks)

    if is_exported(arguments.experiment):
        return _with_exported(spec, arguments.experiment, work)
    return with_experiment(
        spec, arguments, lambda experiment, ranks: work(partial(_of_experiment, spec, experiment), ranks)
    )


def _of_experiment(spec: TaskSpec, experiment: Experiment[Any], ranks: Ranks) -> tuple[ImageInference, Use]:
    config = experiment.config
    inference = cast(ImageInference, spec.inference(experiment, ranks))
    return inference, Use(config.data, config.evaluation.batch_size, config.training.precision)


def _with_exported(spec: TaskSpec, file: Path, work: Callable[[Load, Ranks], None]) -> int:
    """Does ``work`` with an exported model; every rank reads the file."""
    assert spec.deployed is not None, "whatever has a command predict answers for images"
    deployed, layout = spec.deployed, detect_layout(os.environ)

    def load(ranks: Ranks) -> tuple[ImageInference, Use]:
        return deployed(DeployedModel(file, spec.name)), Use(ImageData(), BATCH_SIZE, "fp32")

    def session(ranks: Ranks, report: FailureReport) -> int:
        work(load, ranks)
        return 0

    with setup_logging(layout.rank, layout.world_size):
        return run_session(session, DistributedConfig(device="cpu"), layout, file.absolute().parent / ".rendezvous")


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
    use: Use,
    ranks: Ranks,
) -> Answers:
    """Asks the model about each file, every rank about its share; the same for any number of ranks."""
    reader = ImageFileReader(files, inference.transform)
    settings, sizes = worker_settings(use.data, ranks), np.zeros((len(files), 2), np.int64)
    parts: list[Tensor] = []
    faults: dict[int, str] = {}
    with inference_mode(inference.model, resolve_precision(use.precision, ranks.device)):
        for batch in EvalLoader(reader, len(files), use.batch_size, settings, ranks):
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
