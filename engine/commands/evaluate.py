"""Work with a trained model on any number of ranks: opening its experiment, and recording what was measured of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from engine.commands.arguments import EvaluateArguments
from engine.commands.failure_report import FailureReport
from engine.commands.folder_recorder import listed
from engine.commands.session import reindex, run_session
from engine.config.load import emptied, is_below
from engine.devices.precision import resolve_precision
from engine.distributed.layout import detect_layout
from engine.distributed.ranks import Ranks
from engine.files import check_writable, shown
from engine.log import setup_logging
from engine.run_folder.metrics import MetricWriter
from engine.run_folder.results import begin_results
from engine.run_folder.used_config import used_config
from engine.task.experiment import Experiment, open_experiment
from engine.task.inference import Measured, inference_mode
from engine.task.moved_data import hint_of_moves
from engine.task.spec import TaskSpec

log = logging.getLogger(__name__)


def run_evaluation(spec: TaskSpec, arguments: EvaluateArguments) -> int:
    """Evaluates one checkpoint of an experiment; returns the exit code.

    Raises:
        UserError: folder, checkpoint, settings or data are not as they should be.
    """

    def work(experiment: Experiment[Any], ranks: Ranks) -> None:
        split = arguments.split
        if arguments.reindex:
            reindex(experiment.config, ranks)
        ranks.from_main(partial(check_writable, experiment.folder.results_for(split), "--experiment"))
        inference = spec.inference(experiment, ranks)
        precision = resolve_precision(experiment.config.training.precision, ranks.device)
        with inference_mode(inference.model, precision), hint_of_moves(experiment.config):
            measured = inference.evaluate(split, ranks)
        ranks.heartbeat.at("measure")  # rank 0 alone writes the report
        if ranks.is_main:
            record_evaluation(experiment, split, measured)

    return with_experiment(spec, arguments, work)


def with_experiment(spec: TaskSpec, arguments: Any, work: Callable[[Experiment[Any], Ranks], None]) -> int:
    """Has the ranks meet, rank 0 open an experiment (:mod:`engine.task.experiment`), and all do ``work``.

    Args:
        arguments: Have ``experiment``, ``checkpoint`` and ``overrides``.

    Returns:
        The exit code.

    Raises:
        UserError: folder or settings are not as they should be; what comes after the meeting is reported.
    """
    layout, folder, schema = detect_layout(os.environ), arguments.experiment, spec.schema()
    with setup_logging(layout.rank, layout.world_size):
        for line in emptied(arguments.overrides, schema):
            log.info("%s", line)
        config, _ = used_config(folder, schema, arguments.overrides)
        opened = partial(open_experiment, folder, arguments.checkpoint, schema, arguments.overrides)

        def session(ranks: Ranks, report: FailureReport) -> int:
            work(ranks.from_main(opened), ranks)
            return 0

        return run_session(session, config.distributed, layout, folder.absolute() / ".rendezvous")


def record_evaluation(experiment: Experiment[Any], split: str, measured: Measured) -> None:
    """Keeps what was measured on ``split``: results/<split>/ and a record in metrics.jsonl. For rank 0."""
    step, file = experiment.saved["run"]["step"], experiment.checkpoint.name
    places = experiment.config.locations if measured.own_data else ()
    changed = [change for change in experiment.changes if not is_below(change.partition("=")[0], places)]
    changes = " ".join(changed)
    log.info("%s, %s (step %d): %s", split, file, step, listed(measured.metrics))
    results = begin_results(experiment.folder, split, file, step, changed)
    title = f"{experiment.folder.name}: {file} (step {step}) on {split}"
    measured.write_report(results, title + (f", with {changes}" if changes else ""))
    writer = MetricWriter(experiment.folder, tensorboard=False)
    tags = {"source": "evaluate", "checkpoint": file} | ({"changes": changes} if changes else {})
    writer.write(step, experiment.saved["epoch"], split, measured.metrics, **tags)
    writer.close()
    log.info("report: %s", shown(results / "report.md"))
