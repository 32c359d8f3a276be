"""TensorBoard's events on a disk that cannot be written for a while. The rest is tested with metrics.jsonl."""

from __future__ import annotations

import errno
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from engine.board.events import Board


class FullDisk:
    """What a board's writer is as long as there is no room."""

    def __getattr__(self, name: str) -> Any:
        def fail(*arguments: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        return fail


def steps(folder: Path) -> list[int]:
    return [event.step for event in EventAccumulator(str(folder)).Reload().Scalars("train/loss")]


@pytest.mark.parametrize("retry_seconds", [0.0, 1000.0])
def test_what_a_full_disk_kept_back_is_written_later_or_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, retry_seconds: float
) -> None:
    caplog.set_level(logging.INFO, "engine.board.events")
    board = Board(tmp_path, retry_seconds)
    board.scalars("train", {"loss": 1.0}, 1)
    board.flush()
    real, board._writer = board._writer, FullDisk()  # type: ignore[assignment]
    for step in (2, 3):
        board.scalars("train", {"loss": 1.0}, step)
    if retry_seconds:
        assert board._writer is None
    for step in (4, 5):
        board.scalars("train", {"loss": 1.0}, step)
    board.close()
    assert real is not None
    real.close()
    assert steps(tmp_path) == [1, 2, 3, 4, 5]
    own = [record for record in caplog.records if record.name == "engine.board.events"]  # none of matplotlib's
    assert [record.getMessage().split(":")[0] for record in own] == [
        "TensorBoard's events cannot be written",
        "TensorBoard's events are written again",
    ]


def test_what_cannot_be_written_to_the_end_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Board(tmp_path)
    monkeypatch.setattr(board, "_open", FullDisk().open)
    board.scalars("train", {"loss": 1.0}, 1)
    board.close()
    assert caplog.messages[-1] == "TensorBoard's events could not be written: metrics.jsonl has all of them"


def test_a_full_disk_shows_no_traceback_of_tensorboards_thread(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", shown.append)
    monkeypatch.setattr(RecordWriter, "write", FullDisk().write)
    board = Board(tmp_path, 0.0)
    board.scalars("train", {"loss": 1.0}, 1)
    board.flush()
    board.close()
    assert "No space left on device" in caplog.messages[0]
    assert not shown and threading.excepthook == shown.append


def test_other_errors_of_threads_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", shown.append)
    board = Board(tmp_path)
    board.scalars("train", {"loss": 1.0}, 1)
    thread = threading.Thread(target=lambda: os.stat(tmp_path / "missing"))
    thread.start()
    thread.join()
    board.close()
    assert [found.exc_type for found in shown] == [FileNotFoundError]
