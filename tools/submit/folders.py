"""The folders of submitted runs: claimed before anything is queued, given back if nothing could be."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.config.load import dump_config
from engine.config.run import RunConfig
from engine.files import read_json, write_atomic, write_json
from engine.run_folder.paths import RunDir
from engine.run_folder.status import read_status

PLACE = ".submitit"
"""Beside the experiments: submitit's files, and a note on each run that was submitted."""

SNAPSHOTS = ".snapshots"
"""Beside the experiments: copies of the code."""


@dataclass(frozen=True)
class Note:
    """Note on a submitted run outside its folder, so that it can be found and submitted again."""

    task: str
    cluster: str
    """slurm or local."""
    job: str
    """Slurm's number, ``812`` or ``812_3``; a local job's process."""
    host: str
    """Where it was submitted."""
    log: str
    """Rank 0's output."""
    snapshot: str
    """Hash of the code."""
    resources: dict[str, Any]
    """What was asked for, see :class:`tools.submit.resources.Resources`."""
    swept: tuple[str, ...] = ()
    """``key.path=value`` of a sweep's run."""


def note_file(folder: RunDir) -> Path:
    """Returns the file of the note on a run."""
    return folder.path.parent / PLACE / f"{folder.name}.json"


def write_note(folder: RunDir, note: Note) -> None:
    """Notes how a run was submitted."""
    write_json(note_file(folder), asdict(note))


def read_note(folder: RunDir) -> Note | None:
    """Reads the note on a run; None if it was not submitted, or that cannot be read."""
    return read_json(note_file(folder), lambda content: Note(**{**content, "swept": tuple(content["swept"])}))


def claim(configs: Sequence[RunConfig]) -> list[RunDir]:
    """Claims a folder for each configuration, which lies in it, with the state ``queued``.

    Raises:
        UserError: ``experiment.root`` cannot be made or written; no folder is left behind.
    """
    folders: list[RunDir] = []
    try:
        for config in configs:
            folders.append(RunDir.claim(config.experiment.root))
            write_atomic(folders[-1].config, dump_config(config))
            write_status(folders[-1], "queued")
    except BaseException:
        give_back(folders)
        raise
    return folders


def give_back(folders: Sequence[RunDir]) -> None:
    """Removes folders that were claimed for jobs that nobody has queued."""
    for folder in folders:
        shutil.rmtree(folder.path, ignore_errors=True)


def write_status(folder: RunDir, state: str) -> None:
    """Changes the state of a run that no process writes, and keeps how far it got."""
    before = read_status(folder.status) or {}
    known = {key: before.get(key, default) for key, default in (("epoch", 0.0), ("step", 0), ("best", {}))}
    write_atomic(folder.status, json.dumps({"state": state, **known, "updated": round(time.time(), 3)}) + "\n")


def files_folder(first: RunDir) -> Path:
    """Makes a new folder for submitit's files of one submission, named by its first run."""
    place = first.path.parent / PLACE
    place.mkdir(exist_ok=True)
    for number in itertools.count(1):
        folder = place / (first.name if number == 1 else f"{first.name}.{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            break
    return folder
