"""TensorBoard's events on a disk that cannot be written for a while. The rest is tested with metrics.jsonl."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.run_folder.tensorboard import Board


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
    caplog.set_level(logging.INFO, "engine.run_folder.tensorboard")
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
    own = [
        record for record in caplog.records if record.name == "engine.run_folder.tensorboard"
    ]  # none of matplotlib's
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
