"""What a command says of errors that need no traceback, and how it ends."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.commands.entry import exit_code
from engine.commands.train import _dry_run
from engine.distributed.heartbeat import Place
from engine.errors import UserError, in_a_line
from engine.requeue.retry import failure_of
from tests.distributed import ROOT
from tests.engine.toy import ToyTask, toy_config, toy_model, toy_trainer

FULL = OSError(errno.ENOSPC, "No space left on device", "/scratch/results/val/report.md")
TOLD = [
    (UserError("optimizer.lr: no"), "optimizer.lr: no", 2),
    (KeyboardInterrupt(), "stopped by Ctrl-C", 130),
    (FULL, "/scratch/results/val/report.md cannot be written: No space left on device", 1),
    (OSError(errno.ENAMETOOLONG, "File name too long", "a" * 300), "no path can be as long as 'aaa", 2),
]


def raising(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(("error", "text", "code"), TOLD, ids=lambda value: type(value).__name__)
def test_what_needs_no_traceback_is_told_in_a_line(
    error: BaseException, text: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(lambda: raising(error)) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {text}")
    failure = failure_of(0, "node", Place("measure", 3), error)
    assert failure.traceback == "" and failure.exit_code == code
    assert text in failure.reason and text in failure.message


def test_any_other_error_keeps_its_traceback() -> None:
    for error in (ValueError("a fault of ours"), OSError(errno.EIO, "Input/output error", "x")):
        assert in_a_line(error) is None
        with pytest.raises(type(error)):
            exit_code(lambda error=error: raising(error))  # type: ignore[misc]
        assert "Traceback" in failure_of(0, "node", Place("measure", 3), error).traceback


LATE = """
import os, signal, sys
from engine.commands.entry import exit_on_user_error
from engine.process.signals import StopRequest
class Late:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGUSR1)  # when Python has given all handlers back
sys.late = Late()
StopRequest().install()
exit_on_user_error(lambda: 2)
"""


def test_a_signal_during_pythons_end_does_not_change_the_exit_code() -> None:
    assert subprocess.run([sys.executable, "-c", LATE], cwd=ROOT, timeout=600).returncode == 2


def test_ctrl_c_ends_a_dry_run_at_once(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("model: {name: swin_tiny}\ndata: {source: digits}\n")
    program = (
        "import os, signal, sys, types; from engine.commands.entry import train; from classification.spec import SPEC; "
        "sys.modules['engine.commands.train'] = instead = types.ModuleType('instead'); "  # without torch
        "instead.run_training = lambda *_: os.kill(os.getpid(), signal.SIGINT) or 0; "
        f"sys.argv[1:] = ['--config', {os.fspath(config)!r}, '--dry-run']; train(SPEC)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=600, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (130, "error: stopped by Ctrl-C\n")


@pytest.mark.parametrize(("bad", "said"), [((), "one step made (loss"), (range(24), "not finite, and was skipped")])
def test_a_dry_run_says_what_became_of_its_step(
    bad: Sequence[int], said: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    config = toy_config()
    trainer = toy_trainer(ToyTask(toy_model(), bad=tuple(bad)), config)
    with caplog.at_level("INFO"):
        assert _dry_run(trainer, config) == 0
    assert said in caplog.messages[-1] and caplog.messages[-1].endswith("nothing was written")
    assert "epochs" in capsys.readouterr().out


PRINTING = """
import os, sys
from engine.commands.entry import exit_code
def command():
    with open(sys.argv[1], "w") as file:
        assert file.fileno() > 2
        print("x" * 100_000)
        os.write(2, b"told")
    return 0
sys.exit(exit_code(command))
"""


@pytest.mark.parametrize(
    ("shell", "code", "told"),
    [
        ('"$@" >&- 2>&- <&-', 0, ""),
        ('"$@" >&-', 0, "told"),
        ('"$@" >/dev/full', 1, "tolderror: standard output cannot be written: No space left on device\n"),
        ('"$@" | true; exit "${PIPESTATUS[0]}"', 141, "told"),
    ],
)
def test_where_nothing_can_be_printed_nothing_else_is_harmed(shell: str, code: int, told: str, tmp_path: Path) -> None:
    command = ["bash", "-c", shell, "bash", sys.executable, "-c", PRINTING, os.fspath(tmp_path / "file")]
    ended = subprocess.run(command, cwd=ROOT, timeout=600, capture_output=True, text=True)
    assert ended.returncode == code, ended.stderr
    assert ended.stderr in (told, told.removeprefix("told"))
    assert (tmp_path / "file").read_text() == ""
