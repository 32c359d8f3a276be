"""TMPDIR of a cluster's job: too long for a socket, not there, not to be written."""

from __future__ import annotations

import multiprocessing.process
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from engine.errors import UserError
from engine.process.temporary import LONGEST, prepare_temporary_folder
from tests.distributed import ROOT, clean_environment

PROGRAM = """
import tempfile
from multiprocessing.connection import Listener
from engine.commands.entry import exit_code
def command():
    with Listener(family="AF_UNIX") as listener:
        print(tempfile.gettempdir(), listener.address, sep="|")
    return 0
raise SystemExit(exit_code(command))
"""


def run(folder: Path | str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment({"TMPDIR": os.fspath(folder)})
    return subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has Python look for its folder anew, and for that of sockets, now and afterwards."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.delitem(multiprocessing.process.current_process()._config, "tempdir", raising=False)  # type: ignore[attr-defined]


def test_a_long_folder_has_all_but_the_sockets(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    done = run(long)
    assert done.returncode == 0 and not done.stderr
    folder, _, socket = done.stdout.strip().partition("|")
    assert folder == str(long)
    assert not Path(socket).is_relative_to(long) and len(socket) <= LONGEST + 32
    assert not Path(socket).parent.exists(), "it is gone with its process"


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path, kind: str) -> None:
    asked = tmp_path / kind
    if kind == "file":
        asked.touch()
    done = run(asked)
    reason = {"missing": "No such file or directory", "file": "Not a directory"}[kind]
    assert done.returncode == 0
    assert done.stderr.startswith(f"warning: TMPDIR: {asked}: {reason}; temporary files go to /")


def test_nowhere_to_write_is_an_error_of_the_user(fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    monkeypatch.setattr(tempfile, "_get_default_tempdir", _nowhere)
    with pytest.raises(UserError, match=r"^TMPDIR: No usable temporary directory found; set TMPDIR to a folder"):
        prepare_temporary_folder(print)


def _nowhere(*arguments: object) -> str:
    raise FileNotFoundError(2, "No usable temporary directory found")


def test_nowhere_for_sockets_is_an_error_of_the_user(
    fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    with pytest.raises(UserError, match=rf"^TMPDIR: {long}: too long for the sockets of data workers \(71 bytes"):
        prepare_temporary_folder(print, [str(tmp_path / "missing")])
    assert tempfile.gettempdir() == str(long)
