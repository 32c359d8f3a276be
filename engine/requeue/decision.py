"""Whether a job is tried again, for requeue.sh: ``python -m engine.requeue.decision FOLDER STATUS SINCE``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from engine.files import read_json
from engine.run_folder.exit_status import add_wait_status
from engine.run_folder.failure import Failure, read_failure
from engine.run_folder.paths import RunDir


def failed_node(folder: RunDir, failure: Failure) -> str:
    """Returns Slurm's name of the node that a run's last start failed on; empty if nobody knows whose fault it is."""
    record = read_json(folder.environment) or {}
    devices = [record, *record.get("restarts", [])][-1].get("devices", [])
    return next((each.get("node", "") for each in devices if each.get("rank") == failure.rank), "")


def main(arguments: Sequence[str]) -> None:
    """Prints whether a job is to be tried again.

    If so, three lines: ``retry``, Slurm's name of the node whose fault it is, and the reason; the last two are
    empty where nobody knows. Else ``end`` and the run's own exit code, or nothing where nobody knows that either.

    For scripts that have waited for srun, which began at ``SINCE`` (seconds since 1970) and ended with ``STATUS``; a
    signal is told to FAILED.json. What that says of the cause counts more than the status: srun does not know how a
    rank ended that is lost with all of its node, and kills those that are slow to end after another's error.
    """
    folder, status, since = RunDir(Path(arguments[0])), int(arguments[1]), float(arguments[2])
    failure = read_failure(folder.failed)
    if failure is not None and failure.time < since:
        failure = None
    retry = status > 128 if failure is None else failure.retry
    if status > 128:
        add_wait_status(folder.failed, status, since)
    if retry:
        node, reason = ("", "") if failure is None else (failed_node(folder, failure), failure.reason)
        print("retry", node, reason, sep="\n")
    elif failure is not None:
        print("end", failure.exit_code, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
