"""Evaluation of a trained model, from its folder to its report."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from detection.config import DetectionConfig
from detection.data.annotations import AnnotatedPictures, Annotations, digest
from detection.data.open import open_pictures
from detection.inference import Detector
from detection.report.report import write_report
from detection.task import measure
from engine.commands.arguments import EvaluateArguments
from engine.commands.evaluate import record_evaluation, require_writable, with_experiment
from engine.commands.experiment import Experiment
from engine.devices.precision import resolve_precision
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.training.evaluation import inference

log = logging.getLogger(__name__)


def run_evaluation(arguments: EvaluateArguments) -> int:
    """Evaluates one checkpoint of an experiment; returns the exit code.

    Raises:
        UserError: folder, checkpoint, settings or data are not as they should be.
    """

    def work(experiment: Experiment[DetectionConfig], ranks: Ranks) -> None:
        evaluate_experiment(experiment, arguments.split, ranks)

    folder, checkpoint = arguments.experiment, arguments.checkpoint
    return with_experiment(work, folder, checkpoint, DetectionConfig, arguments.overrides)


def evaluate_experiment(experiment: Experiment[DetectionConfig], split: str, ranks: Ranks) -> dict[str, float]:
    """Metrics of ``split`` on every rank; rank 0 writes the report and adds a record to metrics.jsonl."""
    config = experiment.config
    require_writable(experiment.folder.results_for(split), ranks)
    pictures = ranks.from_main(partial(open_pictures, config.data, split))
    _require_same_classes(experiment, pictures.annotations)
    _warn_of_changed_data(experiment, split, pictures)
    detector = Detector(config, pictures.annotations.classes, ranks)
    experiment.load_into(detector.model)
    with inference(detector.model, resolve_precision(config.training.precision, ranks.device)):
        predictions = detector.predict(detector.model, pictures, ranks)
    values, result = measure(predictions, pictures, ranks)
    ranks.heartbeat.at("measure")  # rank 0 alone writes the report
    if result is not None:
        record_evaluation(
            experiment, split, values, lambda folder, title: write_report(folder, title, result, predictions, pictures)
        )
    return values


def _require_same_classes(experiment: Experiment[Any], known: Annotations) -> None:
    trained_on = experiment.saved["metadata"]
    theirs, ours = (
        dict(zip(ids, classes, strict=True))
        for ids, classes in (
            (trained_on["category_ids"], trained_on["classes"]),
            (known.category_ids, known.classes),
        )
    )
    different = [i for i in {**theirs, **ours} if theirs.get(i) != ours.get(i)]
    if different:
        shown = ", ".join(f"{i}: {theirs.get(i)!r} there, {ours.get(i)!r} here" for i in different[:5])
        raise UserError(f"data: {experiment.checkpoint} was trained on other categories: {shown}")


def _warn_of_changed_data(experiment: Experiment[Any], split: str, pictures: AnnotatedPictures) -> None:
    """Of other pictures or boxes than training had, unless the user asks for others."""
    then = experiment.saved["metadata"].get("digest_of_annotations", {}).get(split)  # older ones lack them
    chosen = any(change.startswith(("data.root=", f"data.{split}")) for change in experiment.changes)
    if then is not None and not chosen and digest(pictures) != then:
        log.warning("data: pictures or annotations of %s are not those that training had", split)
