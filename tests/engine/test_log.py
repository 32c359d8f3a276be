"""Logging: what reaches the console, what the files, and that everything is taken back."""

import logging
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from engine.log import FILE_ONLY, HARMLESS, on_terminal, own_packages, setup_logging

ours = logging.getLogger("engine.somewhere")
theirs = logging.getLogger("thirdparty.module")

STAMP = r"\d\d:\d\d:\d\d "


def lines(text: str) -> list[str]:
    return [re.sub(STAMP, "", line) for line in text.splitlines()]


def test_rank_0_shows_information_and_other_packages_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    with setup_logging(0, 2):
        ours.info("step %d", 3)
        ours.debug("hidden")
        ours.warning("careful")
        theirs.info("hidden")
        theirs.error("broken")
    captured = capsys.readouterr()
    assert re.fullmatch(rf"{STAMP}step 3\n{STAMP}warning: careful\n{STAMP}error: broken\n", captured.out)
    assert captured.err == ""


def test_other_ranks_show_what_is_wrong_with_their_number(capsys: pytest.CaptureFixture[str]) -> None:
    with setup_logging(1, 2):
        ours.info("hidden")
        ours.warning("careful")
    assert re.fullmatch(rf"\[rank 1\] {STAMP}warning: careful\n", capsys.readouterr().out)


def test_a_terminal_is_one_that_somebody_looks_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert on_terminal({})
    assert not on_terminal({"SLURM_STEP_ID": "0"}), "srun --unbuffered"
    assert on_terminal({"SLURM_STEP_ID": "0", "SLURM_PTY_PORT": "1234"}), "srun --pty"


@pytest.mark.parametrize("rank", [0, 1])
def test_files_hold_everything_of_a_rank_from_the_start(
    rank: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "logs" / f"rank_{rank}.log"
    with setup_logging(rank, 2) as log:
        ours.info("early")
        log.attach_file(path)
        ours.info("50 % done")
        ours.info("for the file", extra=FILE_ONLY)
        assert "50 % done" in path.read_text(), "lines are there at once"
        try:
            raise RuntimeError("reason")
        except RuntimeError:
            theirs.exception("failed")
    with setup_logging(rank, 2) as log:
        log.attach_file(path)
        ours.info("after a restart")
    text = path.read_text()
    host = re.escape(os.uname().nodename)
    pattern = rf"\d{{4}}-\d\d-\d\d {STAMP.strip()},\d{{3}} {host} rank {rank} (\w+) ([\w.]+): (.*)"
    assert re.findall(pattern, text) == [
        ("INFO", "engine.somewhere", "early"),
        ("INFO", "engine.somewhere", "50 % done"),
        ("INFO", "engine.somewhere", "for the file"),
        ("ERROR", "thirdparty.module", "failed"),
        ("INFO", "engine.somewhere", "after a restart"),
    ]
    assert "RuntimeError: reason" in text
    assert "for the file" not in capsys.readouterr().out


def test_python_warnings_are_logged_and_shown_by_rank_0_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank in (0, 1):
        with warnings.catch_warnings(), setup_logging(rank, 2) as log:
            warnings.simplefilter("always")
            log.attach_file(tmp_path / f"{rank}.log")
            warnings.warn("old habit", stacklevel=1)
            warnings.warn(f"{HARMLESS}. This may ...", stacklevel=1)
        text, shown = (tmp_path / f"{rank}.log").read_text(), capsys.readouterr().out
        assert "UserWarning: old habit" in text and HARMLESS in text
        assert ("old habit" in shown) == (rank == 0) and HARMLESS not in shown


def test_everything_is_taken_back(tmp_path: Path) -> None:
    root, engine = logging.getLogger(), logging.getLogger("engine")
    before = (list(root.handlers), root.level, engine.level, warnings.showwarning)
    log = setup_logging(0, 1)
    log.attach_file(tmp_path / "rank_0.log")
    assert engine.level == logging.INFO
    assert root.level == before[1], "other packages' levels are their own"
    log.close()
    assert (list(root.handlers), root.level, engine.level, warnings.showwarning) == before
    ours.error("nobody listens")
    assert "nobody" not in (tmp_path / "rank_0.log").read_text()


def test_own_packages_are_those_beside_the_engine() -> None:
    assert {"__main__", "engine", "swin", "classification", "tools"} <= set(own_packages())


def test_a_killed_process_has_logged_all_it_said(tmp_path: Path) -> None:
    script = """
import logging, pathlib, sys, time
from engine.log import setup_logging
setup_logging(1, 2).attach_file(pathlib.Path(sys.argv[1]))
logging.getLogger("engine.x").info("last words")
time.sleep(1000)
"""
    path = tmp_path / "rank_1.log"
    process = subprocess.Popen([sys.executable, "-c", script, os.fspath(path)])
    while not (path.exists() and path.stat().st_size):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path.read_text().endswith("rank 1 INFO engine.x: last words\n")


def test_names_that_are_no_text_do_not_break_a_line(tmp_path: Path) -> None:
    command = (
        "import logging, sys; from pathlib import Path; from engine.commands.entry import exit_code; "
        "from engine.log import setup_logging; "
        "log = setup_logging(0, 1); log.attach_file(Path('x.log')); "
        "exit_code(lambda: logging.getLogger('engine').warning('caf%s', chr(0xdce9)) or print(chr(0xdce9)) or 0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run([sys.executable, "-c", command], cwd=tmp_path, env=environment, capture_output=True)
    assert ended.returncode == 0 and ended.stderr == b""
    assert b"warning: caf\\udce9\n\\udce9\n" in ended.stdout
    assert "caf\\udce9" in (tmp_path / "x.log").read_text()


def test_lines_that_find_no_room_are_dropped(tmp_path: Path) -> None:
    command = (
        "import logging; from engine.commands.entry import exit_code; from engine.log import setup_logging; "
        "setup_logging(0, 1); raise SystemExit(exit_code(lambda: logging.getLogger('engine').info('a line') or 0))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", command], cwd=tmp_path, env=environment, stdout=full, stderr=subprocess.PIPE
        )
    assert (ended.returncode, ended.stderr) == (0, b"")
