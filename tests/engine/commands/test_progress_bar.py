"""Progress: lines where nobody watches, a bar on a real terminal that log lines do not garble."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from engine.commands.progress_bar import Progress, epoch_text, values_text
from engine.log import setup_logging

RUN = """
import logging, pathlib, sys
from engine.log import setup_logging
from engine.commands.progress_bar import Progress
with setup_logging(0, 1) as log:
    log.attach_file(pathlib.Path(sys.argv[1]))
    progress = Progress(40, start=10)
    for step in range(11, 41):
        progress.advance(step)
        if step % 10 == 0:
            progress.update(step, step / 20, {"loss": 1.0 / step, "lr": 1e-3, "images_per_second": 312.4})
            logging.getLogger("engine.x").info("evaluated at step %d", step)
    progress.close()
    logging.getLogger("engine.x").info("the end")
"""


def run_on_terminal(script: str, *arguments: str, columns: int = 120) -> str:
    """What a script writes to a pseudo-terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            data = b""
        if not data:
            break
        shown += data
    os.close(ours)
    assert process.wait() == 0, shown.decode()
    return shown.decode()


def final_screen(shown: str) -> list[str]:
    """The lines that remain visible: a carriage return goes back, and what follows overwrites."""
    screen = []
    for line in shown.replace("\r\n", "\n").split("\n"):
        cells: list[str] = []
        for part in line.split("\r"):
            cells[: len(part)] = list(part)
        screen.append("".join(cells).rstrip())
    return screen


@pytest.mark.parametrize("columns", [120, 0], ids=["sized", "without a size"])
def test_a_terminal_shows_a_bar_and_whole_log_lines(tmp_path: Path, columns: int) -> None:
    shown = run_on_terminal(RUN, os.fspath(tmp_path / "rank_0.log"), columns=columns)
    screen = [line for line in final_screen(shown) if line]
    stamp = r"\d\d:\d\d:\d\d "
    assert len(screen) == 5
    for line, step in zip(screen, (20, 30, 40), strict=False):
        assert re.fullmatch(rf"{stamp}evaluated at step {step}", line)
    assert re.fullmatch(r"epoch 2/2 100%\|.+\| step 40/40, loss 0.025  lr 1\.0e-03  312 img/s  eta 00:00", screen[3])
    assert re.fullmatch(rf"{stamp}the end", screen[4])


def test_the_log_file_has_the_records_that_the_bar_shows(tmp_path: Path) -> None:
    run_on_terminal(RUN, os.fspath(tmp_path / "rank_0.log"))
    text = (tmp_path / "rank_0.log").read_text()
    assert re.findall(r"epoch \d/\d  step \d+/40  loss [\d.]+  lr 1\.0e-03  312 img/s  eta \d\d:\d\d\n", text) == [
        line + "\n" for line in re.findall(r"epoch .*", text)
    ]
    assert text.count("epoch ") == 3


def test_elsewhere_each_record_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 30.0, 60.0])
    with setup_logging(0, 1):
        progress = Progress(1584, start=0, clock=lambda: next(times))
        progress.advance(1)
        progress.update(60, 60 / 44, {"loss": 0.5123, "lr": 9.8e-4, "images_per_second": 312.2, "grad_norm": 1.0})
        progress.update(132, 3.0, {"lr": 9.8e-4})
        progress.close()
    assert [line[9:] for line in capsys.readouterr().out.splitlines()] == [
        "epoch 2/36  step 60/1584  loss 0.5123  lr 9.8e-04  312 img/s  eta 12:42",
        "epoch 3/36  step 132/1584  lr 9.8e-04  eta 11:00",
    ]


def test_a_resumed_run_is_timed_from_where_it_began(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([100.0, 110.0])
    with setup_logging(0, 1):
        Progress(100, start=50, clock=lambda: next(times)).update(60, 0.6, {})
    assert capsys.readouterr().out[9:] == "epoch 1/1  step 60/100  eta 00:40\n"


@pytest.mark.parametrize(
    ("step", "epoch", "total", "text"),
    [
        (0, 0.0, 30, "epoch 1"),
        (1, 0.1, 30, "epoch 1/3"),
        (10, 1.0, 30, "epoch 1/3"),
        (11, 1.1, 30, "epoch 2/3"),
        (30, 3.0, 30, "epoch 3/3"),
        (7, 7 / 3, 10, "epoch 3/4"),
        (49, 49 / 7, 49 * 3, "epoch 7/21"),
    ],
)
def test_epochs(step: int, epoch: float, total: int, text: str) -> None:
    assert epoch_text(step, epoch, total) == text


def test_values_leave_out_what_is_not_there() -> None:
    assert values_text({"top1": 0.5}) == ""
    assert values_text({"loss": 12345.678, "images_per_second": 0.5}) == "loss 1.235e+04  0.5 img/s"
    assert values_text({"loss": float("nan")}) == "loss nan"
