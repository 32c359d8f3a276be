"""Evaluation of a trained model, from its folder to its report."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from classification.config import ClassificationConfig
from classification.metrics.measure import measure
from classification.metrics.predictions import Predictions
from classification.report.multi_label import write_multilabel_report
from classification.report.parts import Origin
from classification.report.single_label import calibrated, write_report
from classification.trained import Trained, load_trained, reading_workers
from engine.commands.arguments import EvaluateArguments
from engine.commands.evaluate import record_evaluation, require_writable, with_experiment
from engine.commands.experiment import Experiment
from engine.datasets.dataset import open_pictures, prepare_on_all, split_made
from engine.datasets.labelled import LabelledPictures, names_digest
from engine.devices.precision import resolve_precision
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.training.evaluation import inference

log = logging.getLogger(__name__)

OTHER_DATA = ("data.root=", "data.csv=", "data.val_fraction=", "data.split_seed=")
"""Changes by which somebody asks for other pictures than the run's own."""


def run_evaluation(arguments: EvaluateArguments) -> int:
    """Evaluates one checkpoint of an experiment; returns the exit code.

    Raises:
        UserError: folder, checkpoint, settings or data are not as they should be.
    """

    def work(experiment: Experiment[ClassificationConfig], ranks: Ranks) -> None:
        evaluate_experiment(experiment, arguments.split, ranks)

    folder, checkpoint = arguments.experiment, arguments.checkpoint
    return with_experiment(work, folder, checkpoint, ClassificationConfig, arguments.overrides)


def evaluate_experiment(experiment: Experiment[ClassificationConfig], split: str, ranks: Ranks) -> dict[str, float]:
    """Metrics of ``split`` on every rank; rank 0 writes the report and adds a record to metrics.jsonl."""
    config = experiment.config
    require_writable(experiment.folder.results_for(split), ranks)
    prepare_on_all(config.data, ranks)
    trained = load_trained(experiment, ranks)
    pictures = ranks.from_main(partial(open_pictures, config.data, split, trained.classes))
    _check_same_classes(experiment.checkpoint, trained, pictures)
    if split == "val" and ranks.is_main:
        _warn_of_changed_data(experiment, pictures)
    workers = reading_workers(config, ranks)
    with inference(trained.model, resolve_precision(config.training.precision, ranks.device)):
        predictions = trained.inference.predict(trained.model, pictures, config.evaluation.batch_size, workers, ranks)
    ranks.heartbeat.at("measure")  # and rank 0 alone writes the report
    values = measure(predictions, config.evaluation.thresholds, experiment.saved["run"]["findings"])
    if isinstance(predictions, Predictions):
        values["ece"] = calibrated(predictions, config.evaluation.calibration_bins).error

    def write(folder: Path, title: str) -> None:
        origin = Origin(title, pictures, trained.train_counts, config.evaluation, experiment.folder.metrics)
        if isinstance(predictions, Predictions):
            write_report(folder, origin, values, predictions)
        else:
            assert trained.thresholds is not None
            write_multilabel_report(folder, origin, values, predictions, trained.thresholds)

    if ranks.is_main:
        record_evaluation(experiment, split, values, write)
    return values


def _check_same_classes(checkpoint: Path, trained: Trained, pictures: LabelledPictures) -> None:
    if pictures.classes != trained.classes:
        raise UserError(
            f"data: {checkpoint} was trained on other classes: {', '.join(trained.classes[:10])} there, "
            f"{', '.join(pictures.classes[:10])} here"
        )
    if pictures.multi_label != trained.inference.multi_label:
        several, one = "several labels a picture", "one label a picture"
        there, here = (several, one) if trained.inference.multi_label else (one, several)
        raise UserError(f"data: {checkpoint} was trained on {there}, but there is {here} here")


def _warn_of_changed_data(experiment: Experiment[ClassificationConfig], val: LabelledPictures) -> None:
    """Of other pictures than there were in training; where val is a part of train, of train's as well."""
    if any(change.startswith(OTHER_DATA) for change in experiment.changes):
        return
    data, metadata = experiment.config.data, experiment.saved["metadata"]
    then, names = (metadata.get(key, {}) for key in ("pictures", "digest_of_picture_names"))  # older ones lack them
    now = {"val": val, "train": open_pictures(data, "train")} if split_made(data) else {"val": val}
    for split, pictures in now.items():
        mixed = ": pictures that the model was trained on may be in val now" if "train" in now else ""
        if len(pictures) != then.get(split, len(pictures)):
            log.warning("data: %s has %d pictures, but had %d in training%s", split, len(pictures), then[split], mixed)
        elif split in names and names_digest(pictures) != names[split]:
            log.warning("data: %s has as many pictures as in training, but of other names%s", split, mixed)
