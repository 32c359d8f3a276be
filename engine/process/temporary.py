"""The folder for temporary files: one that can be written, and a short one for sockets. Imports no torch."""

from __future__ import annotations

import multiprocessing.util
import os
import tempfile
from collections.abc import Callable, Sequence

from engine.errors import UserError

_NAMES = ("TMPDIR", "TEMP", "TMP")
_SHORT = ("/tmp", "/var/tmp", "/dev/shm")
LONGEST = 71
"""Bytes of the folder in which data workers can make their sockets, whose names the system ends at 103."""


def prepare_temporary_folder(warn: Callable[[str], object], short: Sequence[str] = _SHORT) -> None:
    """Makes sure that there is a folder for temporary files, and that data workers can make sockets.

    Where the name of the folder is too long for these, one of ``short`` has them; all other files stay where ``TMPDIR``
    says.

    Args:
        warn: is told that another folder is used than the one that was asked for, and why.

    Raises:
        UserError: there is no folder that can be written.
    """
    name, asked = next(((name, value) for name in _NAMES if (value := os.environ.get(name))), ("TMPDIR", ""))
    try:
        used = tempfile.gettempdir()
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}; set TMPDIR to a folder that can be written") from None
    if asked and os.path.abspath(asked) != used:
        warn(f"{name}: {asked}: {_fault(asked)}; temporary files go to {used}")
    if len(os.fsencode(used)) > LONGEST and not any(map(_hold_sockets, short)):
        raise UserError(
            f"{name}: {used}: too long for the sockets of data workers ({LONGEST} bytes at most), and none of "
            f"{', '.join(short)} can be written; set TMPDIR to a shorter folder"
        )


def _fault(folder: str) -> str:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"room")
    except OSError as error:
        return error.strerror or str(error)
    return "cannot be used"


def _hold_sockets(folder: str) -> bool:
    """Has this process and its workers make their sockets below ``folder``; returns whether they can."""
    before = tempfile.tempdir
    tempfile.tempdir = folder
    try:
        multiprocessing.util.get_temp_dir()  # which is made once, and known to all workers
    except OSError:
        return False
    finally:
        tempfile.tempdir = before
    return True
