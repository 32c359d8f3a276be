"""Checkpoint files: written aside, flushed to disk, renamed into place, and verified before they are read.

A file that carries a checkpoint's name is complete: its checksum is on disk before it, and it was flushed to disk
before the rename. ``last.pt`` and ``best.pt`` are further names (hard links) of numbered files. A folder has one
writer; readers need not wait for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

from engine.errors import UserError
from engine.files import other_than_file, sync_folder, write_atomic

FORMAT = 1
"""Version of the checkpoint's layout, stored in each."""

LEFT_OVER = ("*.pt.part", ".*.pt.sha256.*")
"""What a kill in the middle of a save leaves behind."""

TORN = "differs from its checksum: torn or altered"


class _Hashing:
    """A file to write to that computes the SHA-256 of what passes through it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.flush, self.sha256 = file, file.flush, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self._file.write(data)


def step_file(folder: Path, step: int) -> Path:
    """Returns the name of the checkpoint after ``step`` steps."""
    return folder / f"step_{step:08d}.pt"


def numbered(folder: Path) -> list[Path]:
    """Returns the numbered checkpoints in ``folder``, newest first."""
    return sorted(folder.glob("step_*.pt"), reverse=True)


def checksum_file(path: Path) -> Path:
    """Returns the file beside ``path`` that holds its SHA-256."""
    return path.with_name(path.name + ".sha256")


def save(
    folder: Path,
    step: int,
    state: dict[str, Any],
    keep: int,
    best: bool = False,
    before_publish: Callable[[], None] = lambda: None,
) -> Path:
    """Writes ``state`` as the checkpoint of ``step`` and removes all but the newest ``keep``.

    ``last.pt`` names the new file afterwards, and ``best.pt`` too if ``best``. Killed at any moment, the checkpoints
    that were there before stay readable: none is removed before the new one has its name on disk. Files of later steps
    are removed: a run that writes ``step`` now was continued from before them, because they were damaged.

    Args:
        before_publish: Called when the content is on disk, before it gets its name.

    Raises:
        OSError: the disk is full or cannot be written, or ``before_publish`` found so; nothing torn is left on it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = step_file(folder, step)
    with _aside(path) as aside:
        digest = _write(aside, state)
        before_publish()
        _publish(aside, path, digest)
    for alias in [folder / "last.pt", *([folder / "best.pt"] if best else [])]:
        with _aside(alias) as aside:
            aside.unlink(missing_ok=True)
            _link(path, aside)
            _publish(aside, alias, digest)
    sync_folder(folder)
    _prune(folder, [earlier for earlier in numbered(folder) if earlier.name <= path.name][:keep])
    return path


def tidy(folder: Path, keep: int, warn: Callable[[str], None]) -> None:
    """Makes room as a finished save would have, for a writer that starts, or whose last save failed.

    Removes what a kill left over, torn numbered files, each of which is named to ``warn``, and of the whole ones all
    but the newest ``keep``. A torn file must go, since :func:`save` would count it among those it keeps. One that
    cannot be read, or not compared, stays: the disk may answer again.
    """
    faults = {path: verify(path) for path in numbered(folder)}
    for path, fault in faults.items():
        if fault == TORN:
            warn(f"checkpoint {path} {fault}; it is removed")
    whole = [path for path, fault in faults.items() if fault is None]
    _prune(folder, [*whole[:keep], *(path for path, fault in faults.items() if fault not in (None, TORN))])


def verify(path: Path) -> str | None:
    """Returns None if the file is what was written, else what is wrong with it."""
    known = _known_digests(path)
    try:
        if kind := other_than_file(path):
            return f"is {kind}, no file"
        with path.open("rb") as file:
            known |= _known_digests(path)  # a writer may have replaced both since
            found = digest(file)
    except FileNotFoundError:
        return "is not there"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not known:
        return "has no checksum beside it"
    return None if found in known else TORN


def read(path: Path) -> dict[str, Any]:
    """Reads a checkpoint of ours, onto the CPU.

    Raises:
        UserError: the file is not a checkpoint of this suite, or of a later version of it.
    """
    try:
        if kind := other_than_file(path):
            raise ValueError(f"it is {kind}, no file")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # whose text advises to load what may run code of others
        reason = "it is none, is damaged, or holds more than plain values"
        raise UserError(f"{path}: cannot be read as a checkpoint: {reason}") from None
    except Exception as error:  # damaged files fail in many ways
        raise UserError(f"{path}: cannot be read as a checkpoint: {first_line(error)}") from None
    if not isinstance(state, dict) or "format" not in state:
        raise UserError(f"{path}: not a checkpoint of this suite (no `format` entry)")
    if state["format"] != FORMAT:
        raise UserError(f"{path}: format {state['format']}, but this version reads format {FORMAT}")
    return state


def newest(folder: Path, warn: Callable[[str], None]) -> Path | None:
    """Returns the newest checkpoint in ``folder`` that verifies, or None; each one passed over is named to ``warn``.

    ``last.pt`` and ``best.pt`` are tried after all numbered files, of which they may be copies or older.
    """
    aliases = filter(Path.exists, (folder / "last.pt", folder / "best.pt"))
    for path in [*numbered(folder), *aliases]:
        fault = verify(path)
        if fault is None:
            return path
        warn(f"checkpoint {path} {fault}; passed over")
    return None


def first_line(error: Exception) -> str:
    """Returns the first line of an exception's text, or its kind where it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


@contextlib.contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """Yields where the file is written that will be ``path``; it is removed if that fails."""
    aside = path.with_name(path.name + ".part")
    try:
        yield aside
    except Exception:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def _write(path: Path, state: dict[str, Any]) -> str:
    """Writes ``state`` to ``path``, flushed to disk; returns its SHA-256."""
    try:
        with path.open("wb") as file:
            hashing = _Hashing(file)
            torch.save(state, hashing)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
    except Exception as error:
        if isinstance(error.__context__, OSError):  # torch covers a full disk by a failure of its own
            raise error.__context__ from None
        raise
    return hashing.sha256.hexdigest()


def _publish(aside: Path, path: Path, digest: str) -> None:
    """Renames ``aside`` to ``path``; at every moment the checksum's file knows what carries the name."""
    sidecar, line = checksum_file(path), f"{digest}  {path.name}\n"
    before = sidecar.read_text(errors="replace") if sidecar.exists() else ""
    write_atomic(sidecar, line + before)
    aside.replace(path)
    if before:
        write_atomic(sidecar, line)


def _prune(folder: Path, checkpoints: Sequence[Path]) -> None:
    """Removes numbered files but for ``checkpoints``, and what a kill left over."""
    kept = {name for path in checkpoints for name in (path, checksum_file(path))}
    for pattern in ("step_*.pt", "step_*.pt.sha256", *LEFT_OVER):
        for path in folder.glob(pattern):
            if path not in kept:
                path.unlink(missing_ok=True)


def _known_digests(path: Path) -> set[str]:
    """Returns what the checksum's file lists: one digest, or while the name changes its owner two."""
    try:
        return {line.split(" ")[0] for line in checksum_file(path).read_text(errors="replace").splitlines()}
    except OSError:
        return set()


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
        with target.open("rb") as file:
            os.fsync(file.fileno())


def digest(file: BinaryIO) -> str:
    """Returns the SHA-256 of a file that is open for reading."""
    hashing = hashlib.sha256()
    while chunk := file.read(1 << 20):
        hashing.update(chunk)
    return hashing.hexdigest()
