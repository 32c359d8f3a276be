"""Evaluation of a trained model, from its folder to its report."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from classification.config import TRAINED, ClassificationConfig
from classification.datasets import open_pictures, prepare_data
from classification.measures import measure
from classification.multilabel_report import write_multilabel_report
from classification.predictions import Predictions
from classification.report import calibrated, write_report
from classification.report_parts import Origin
from classification.sources import LabelledPictures
from classification.trained import Trained, load_trained, reading_workers
from engine.disk import check_writable
from engine.dist import Ranks, detect_layout
from engine.errors import UserError
from engine.evaluation import inference
from engine.experiment import Experiment, open_experiment
from engine.last_words import LastWords
from engine.log import setup_logging
from engine.metrics import MetricWriter
from engine.precision import resolve_precision
from engine.recorder import listed, shown
from engine.results import begin_results
from engine.session import run_session

log = logging.getLogger(__name__)


def run_evaluation(folder: Path, checkpoint: str, split: str, overrides: Sequence[str]) -> int:
    """Evaluates one checkpoint of an experiment; returns the exit code.

    Raises:
        UserError: folder, checkpoint, settings or data are not as they should be.
    """
    layout = detect_layout(os.environ)
    with setup_logging(layout.rank, layout.world_size):
        experiment = open_experiment(folder, checkpoint, ClassificationConfig, overrides, TRAINED)

        def work(ranks: Ranks, last_words: LastWords) -> int:
            evaluate_experiment(experiment, split, ranks)
            return 0

        return run_session(work, experiment.config.distributed, layout, experiment.folder.path / ".rendezvous")


def _check_place(results: Path) -> str:
    check_writable(results)
    return ""


def evaluate_experiment(experiment: Experiment[ClassificationConfig], split: str, ranks: Ranks) -> dict[str, float]:
    """Metrics of ``split`` on every rank; rank 0 writes the report and adds a record to metrics.jsonl."""
    config = experiment.config
    ranks.main_decides(partial(_check_place, experiment.folder.results_for(split)))
    if ranks.layout.local_rank == 0:
        prepare_data(config.data)
    ranks.barrier()
    trained = load_trained(experiment, ranks)
    pictures = open_pictures(config.data, split, trained.classes)
    _check_same_classes(experiment.checkpoint, trained, pictures)
    workers = reading_workers(config, ranks)
    with inference(trained.model, resolve_precision(config.training.precision, ranks.device)):
        predictions = trained.inference.predict(trained.model, pictures, config.evaluation.batch_size, workers, ranks)
    values = measure(predictions, config.evaluation.thresholds, experiment.saved["run"]["findings"])
    step, file = experiment.saved["run"]["step"], experiment.checkpoint.name
    log.info("%s, %s (step %d): %s", split, file, step, listed(values))
    if ranks.is_main:
        changes = " ".join(experiment.changes)
        results = begin_results(experiment.folder, split, file, step, experiment.changes)
        title = f"{experiment.folder.name}: {file} (step {step}) on {split}" + (f", with {changes}" if changes else "")
        origin = Origin(title, pictures, trained.train_counts, config.evaluation, experiment.folder.metrics)
        if isinstance(predictions, Predictions):
            write_report(results, origin, values, predictions)
            values = {**values, "ece": calibrated(predictions, config.evaluation.calibration_bins).error}
        else:
            assert trained.thresholds is not None
            write_multilabel_report(results, origin, values, predictions, trained.thresholds)
        writer = MetricWriter(experiment.folder, tensorboard=False)
        tags = {"source": "evaluate", "checkpoint": file} | ({"changes": changes} if changes else {})
        writer.write(step, experiment.saved["epoch"], split, values, **tags)
        writer.close()
        log.info("report: %s", shown(results / "report.md"))
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
