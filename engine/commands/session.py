"""Work that all ranks do together, from meeting to parting, watched over so that none is left behind."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from engine.commands.failure_report import FailureReport
from engine.config.run import DistributedConfig, RunConfig
from engine.data.index import forget
from engine.distributed.connect import connect
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.process.descriptors import require_descriptors
from engine.process.signals import StopRequest
from engine.process.start_guard import StartGuard
from engine.watchdog.process_end import end_process
from engine.watchdog.verdict import Limits
from engine.watchdog.watchdog import Watchdog


def reindex(config: RunConfig, ranks: Ranks) -> None:
    """Removes the indices of the run's data, on rank 0, so that they are listed anew."""
    root = getattr(getattr(config, "data", None), "root", None)
    if root is not None:
        ranks.from_main(partial(forget, root))


Work = Callable[[Ranks, FailureReport], int]
"""What a rank does; returns its exit code. It tells the failure report where to write, as soon as it knows."""


def run_session(
    work: Work,
    settings: DistributedConfig,
    layout: Layout,
    meeting_place: Path,
    stop: StopRequest | None = None,
    guard: StartGuard | None = None,
) -> int:
    """Has the ranks meet, do ``work`` and part; returns the exit code.

    An error of any rank, its death, a hang or the launcher's end is reported by :class:`FailureReport` on every rank
    and ends them all. With several ranks such a process ends here.

    Args:
        meeting_place: a folder that all nodes see, where ranks find each other that torchrun has not started.
        stop: set by the process's signal handlers, if it has any.
        guard: ends this process until the ranks have met.

    Raises:
        UserError: the ranks cannot meet, or this system does not let rank 0 hold a connection to each of them.
    """
    require_descriptors(layout.rank, layout.world_size)
    ranks = connect(settings, layout, meeting_place, stop)
    report = FailureReport(ranks.rank, ranks.stop)
    with Watchdog(
        ranks,
        Limits(settings.timeout_seconds, settings.start_timeout_seconds),
        report,
        lambda: report.folder.log_file(ranks.rank) if report.folder is not None else None,
        guard.launcher_pid if guard is not None else None,
    ) as watchdog:
        if guard is not None:
            guard.close()
        try:
            code = work(ranks, report)
            ranks.heartbeat.at("end")
            ranks.barrier()  # a launcher ends all ranks soon after the first: not before rank 0 has written everything
        except BaseException as error:
            failure = watchdog.settle(error)
            if ranks.world_size > 1:  # collectives may be half done, and threads of theirs never end
                end_process(failure, report)
            report(failure)
            return failure.exit_code
        report.release()
    ranks.close()
    return code
