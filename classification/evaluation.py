"""Evaluation of a trained model, from its folder to its report."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from classification.config import ClassificationConfig
from classification.measures import measure
from classification.predictions import Predictions
from classification.report import write_report
from classification.task import ClassificationTask
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
        preset = ["model.pretrained=false"]  # all weights come from the checkpoint
        experiment = open_experiment(folder, checkpoint, ClassificationConfig, overrides, preset)

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
    task = ClassificationTask(config, ranks)
    trained_on = experiment.saved["metadata"]["classes"]
    if task.classes != trained_on:
        raise UserError(
            f"data: {experiment.checkpoint} was trained on other classes: {', '.join(trained_on[:10])} there, "
            f"{', '.join(task.classes[:10])} here"
        )
    experiment.load_into(task.model)
    with inference(task.model, resolve_precision(config.training.precision, ranks.device)):
        predictions, names = task.predict(task.model, split, ranks)
    values = measure(predictions, config.evaluation.thresholds, experiment.saved["run"]["findings"])
    step, file = experiment.saved["run"]["step"], experiment.checkpoint.name
    log.info("%s, %s (step %d): %s", split, file, step, listed(values))
    if ranks.is_main:
        changes = " ".join(experiment.changes)
        results = begin_results(experiment.folder, split, file, step, experiment.changes)
        title = f"{experiment.folder.name}: {file} (step {step}) on {split}" + (f", with {changes}" if changes else "")
        assert isinstance(predictions, Predictions)
        write_report(results, title, values, predictions, task.classes, names)
        writer = MetricWriter(experiment.folder, tensorboard=False)
        tags = {"source": "evaluate", "checkpoint": file} | ({"changes": changes} if changes else {})
        writer.write(step, experiment.saved["epoch"], split, values, **tags)
        writer.close()
        log.info("report: %s", shown(results / "report.md"))
    return values
