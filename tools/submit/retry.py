"""``--retry``: runs that stopped before they were finished, queued again in their own folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from engine.errors import UserError
from engine.files import usable_path, write_atomic
from engine.run_folder.paths import RunDir
from tools.submit.folders import Note, write_status
from tools.submit.overview import OVER, View
from tools.submit.resources import Resources, check_known
from tools.submit.submission import Submitted, queue


def retry(views: Sequence[View], changed: Mapping[str, Any]) -> tuple[list[Submitted], list[View]]:
    """Queues what has stopped and is not finished, with what it asked for before but for ``changed`` resources.

    Runs that were submitted alike become one array again. They run the code as it is now.

    Returns:
        The queued runs; and those that stopped, but were not submitted by this tool.

    Raises:
        UserError: they are refused, their states are as before; or nobody can tell whether they still wait; or a run
            was started where one of ``changed`` means nothing. Nothing is queued then.
    """
    over = [view for view in views if view.state in OVER and not view.alive]
    unclear = [usable_path(view.folder.path) for view in over if view.alive is None and view.note is not None]
    if unclear:
        raise UserError(
            f"--retry: nobody here can tell whether {', '.join(unclear)} still waits or runs: Slurm does not answer, "
            "or it was started on another machine; try again there"
        )
    groups: dict[str, dict[RunDir, Note]] = {}
    for view in over:
        if (note := view.note) is not None:
            check_known(note.cluster, changed)
            alike = (view.folder.path.parent, note.task, note.cluster, sorted(note.resources.items()))
            groups.setdefault(repr(alike), {})[view.folder] = note
    queued = [each for group in groups.values() for each in _queue_again(group, changed)]
    return queued, [view for view in over if view.note is None]


def _queue_again(group: Mapping[RunDir, Note], changed: Mapping[str, Any]) -> list[Submitted]:
    note = next(iter(group.values()))
    asked = Resources(**note.resources)
    resources = replace(asked, **{**changed, "slurm": {**asked.slurm, **changed.get("slurm", {})}})
    before = {folder: folder.status.read_text(encoding="utf-8") for folder in group}
    try:
        for folder in group:
            write_status(folder, "queued")
        swept = [each.swept for each in group.values()]
        return queue(note.task, list(group), swept, note.cluster, resources, note.task)
    except BaseException:
        for folder, text in before.items():
            write_atomic(folder.status, text)
        raise
