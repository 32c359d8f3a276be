"""Checkpoint files: written aside, flushed to disk, renamed into place, and verified before they are read.

A file that carries a checkpoint's name is complete: the checksum's file is in place before it, and both were flushed to
disk before the rename. ``last.pt`` and ``best.pt`` are further names (hard links) of numbered files.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from engine.errors import UserError

FORMAT = 1
"""Version of the checkpoint's layout, stored in each."""


class _Hashing:
    """A file to write to that computes the SHA-256 of what passes through it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def step_file(folder: Path, step: int) -> Path:
    return folder / f"step_{step:08d}.pt"


def numbered(folder: Path) -> list[Path]:
    """The numbered checkpoints in ``folder``, newest first."""
    return sorted(folder.glob("step_*.pt"), reverse=True)


def checksum_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def save(folder: Path, step: int, state: dict[str, Any], keep: int, best: bool = False) -> Path:
    """Writes ``state`` as the checkpoint of ``step`` and removes all but the newest ``keep``.

    ``last.pt`` names the new file afterwards, and ``best.pt`` too if ``best``. Killed at any moment, the checkpoints
    that were there before stay readable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = step_file(folder, step)
    aside = path.with_name(path.name + ".part")
    with aside.open("wb") as file:
        hashing = _Hashing(file)  # type: ignore[arg-type]
        torch.save(state, hashing)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    _place(checksum_file(path), lambda target: _write_synced(target, f"{hashing.hexdigest()}  {path.name}\n"))
    aside.replace(path)
    for alias in ["last.pt", *(["best.pt"] if best else [])]:
        for source, name in ((checksum_file(path), checksum_file(folder / alias)), (path, folder / alias)):
            _place(name, lambda target, source=source: _link(source, target))  # type: ignore[misc]
    _sync_folder(folder)
    for old in numbered(folder)[keep:]:
        old.unlink()
        checksum_file(old).unlink(missing_ok=True)
    return path


def verify(path: Path) -> str | None:
    """None if the file is what was written, else what is wrong with it."""
    known = set()
    for sidecar in path.parent.glob("*.sha256"):  # an alias may be one kill ahead of, or behind, its own
        with contextlib.suppress(OSError, UnicodeDecodeError):
            known.add(sidecar.read_text().split(" ")[0])
    if not path.exists():
        return "is not there"
    if not known:
        return "has no checksum beside it"
    with path.open("rb") as file:
        digest = _digest(file)
    return None if digest in known else "differs from its checksum: torn or altered"


def read(path: Path) -> dict[str, Any]:
    """A checkpoint of ours, on the CPU.

    Raises:
        UserError: the file is not a checkpoint of this suite, or of a later version of it.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{path}: cannot be read as a checkpoint: {str(error).splitlines()[0]}") from None
    if not isinstance(state, dict) or "format" not in state:
        raise UserError(f"{path}: not a checkpoint of this suite (no `format` entry)")
    if state["format"] != FORMAT:
        raise UserError(f"{path}: format {state['format']}, but this version reads format {FORMAT}")
    return state


def newest(folder: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest checkpoint in ``folder`` that verifies, or None; each one passed over is named to ``warn``."""
    for path in numbered(folder):
        fault = verify(path)
        if fault is None:
            return read(path)
        warn(f"checkpoint {path} {fault}; trying the one before")
    return None


def _place(path: Path, make: Callable[[Path], None]) -> None:
    aside = path.with_name(path.name + ".part")
    aside.unlink(missing_ok=True)
    make(aside)
    aside.replace(path)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
        with target.open("rb") as file:
            os.fsync(file.fileno())


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()
