"""Work that all ranks do together, from meeting to parting, watched over so that none is left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine.dist import Layout, Ranks, connect
from engine.last_words import LastWords
from engine.settings import DistributedConfig
from engine.signals import StopRequest
from engine.watch.ending import end_process
from engine.watch.start import StartGuard
from engine.watch.watch import Watch

Work = Callable[[Ranks, LastWords], int]
"""What a rank does; returns its exit code. It tells the last words where to write, as soon as it knows."""


def run_session(
    work: Work,
    settings: DistributedConfig,
    layout: Layout,
    meeting_place: Path,
    stop: StopRequest | None = None,
    guard: StartGuard | None = None,
) -> int:
    """Has the ranks meet, do ``work`` and part; returns the exit code.

    An error of any rank, its death, a hang or the launcher's end is reported by :class:`LastWords` on every rank and
    ends them all. With several ranks such a process ends here.

    Args:
        meeting_place: a folder that all nodes see, where Slurm's ranks find each other.
        stop: set by the process's signal handlers, if it has any.
        guard: ends this process until the ranks have met.

    Raises:
        UserError: the ranks cannot meet.
    """
    ranks = connect(settings, layout, meeting_place, stop)
    last_words = LastWords(ranks.rank)
    with Watch(
        ranks,
        ranks.pulse,
        ranks.stop,
        settings.timeout_seconds,
        last_words,
        launcher_pid=guard.launcher_pid if guard is not None else None,
    ) as watch:
        if guard is not None:
            guard.close()
        try:
            code = work(ranks, last_words)
            ranks.pulse.at("end")
            ranks.barrier()  # a launcher ends all ranks soon after the first: not before rank 0 has written everything
        except BaseException as error:
            failure = watch.settle(error)
            if ranks.world_size > 1:  # collectives may be half done, and threads of theirs never end
                end_process(failure, last_words)
            last_words(failure)
            return failure.exit_code
        last_words.release()
    ranks.close()
    return code
