"""Work with a trained model on any number of ranks: opening its experiment, and recording what was measured of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from engine.commands.experiment import Experiment, open_experiment
from engine.commands.failure_report import FailureReport
from engine.commands.folder_recorder import listed
from engine.commands.session import run_session
from engine.config.sections import RunConfig
from engine.distributed.ranks import Ranks, detect_layout
from engine.files import check_writable, shown
from engine.log import setup_logging
from engine.run_folder.metrics import MetricWriter
from engine.run_folder.results import begin_results
from engine.run_folder.used_config import used_config

log = logging.getLogger(__name__)

C = TypeVar("C", bound=RunConfig)


def with_experiment(
    work: Callable[[Experiment[C], Ranks], None],
    folder: Path,
    checkpoint: str,
    schema: type[C],
    overrides: Sequence[str],
) -> int:
    """Has the ranks meet, rank 0 open an experiment (:mod:`engine.commands.experiment`), and all do ``work``.

    Returns:
        The exit code.

    Raises:
        UserError: folder or settings are not as they should be; what comes after the meeting is reported.
    """
    layout = detect_layout(os.environ)
    with setup_logging(layout.rank, layout.world_size):
        config, _ = used_config(folder, schema, overrides)

        def session(ranks: Ranks, report: FailureReport) -> int:
            work(ranks.from_main(partial(open_experiment, folder, checkpoint, schema, overrides)), ranks)
            return 0

        return run_session(session, config.distributed, layout, folder.absolute() / ".rendezvous")


def require_writable(folder: Path, ranks: Ranks, key: str = "--experiment") -> None:
    """Raises a :class:`engine.errors.UserError` on every rank if rank 0 cannot write in ``folder``.

    ``key``: the option that names it.
    """
    ranks.main_decides(partial(_check_writable, folder, key))


def _check_writable(folder: Path, key: str) -> str:
    check_writable(folder, key)
    return ""


def record_evaluation(
    experiment: Experiment[C], split: str, values: dict[str, float], write_report: Callable[[Path, str], None]
) -> None:
    """Keeps what was measured on ``split``: results/<split>/ and a record in metrics.jsonl. For rank 0.

    Args:
        write_report: Writes report.md and all that belongs to it; is given the folder and a title.
    """
    step, file, changes = experiment.saved["run"]["step"], experiment.checkpoint.name, " ".join(experiment.changes)
    log.info("%s, %s (step %d): %s", split, file, step, listed(values))
    results = begin_results(experiment.folder, split, file, step, experiment.changes)
    title = f"{experiment.folder.name}: {file} (step {step}) on {split}"
    write_report(results, title + (f", with {changes}" if changes else ""))
    writer = MetricWriter(experiment.folder, tensorboard=False)
    tags = {"source": "evaluate", "checkpoint": file} | ({"changes": changes} if changes else {})
    writer.write(step, experiment.saved["epoch"], split, values, **tags)
    writer.close()
    log.info("report: %s", shown(results / "report.md"))
