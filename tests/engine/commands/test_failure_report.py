"""What torchrun's summary shows of a failure."""

from __future__ import annotations

from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from engine.commands.failure_report import FailureReport
from engine.run_folder.failure import Failure


def test_torchrun_shows_the_cause(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    FailureReport(1)(Failure(1, "n1", 12, "rank 1 on n1 vanished", time=1000.5))
    shown = ProcessFailure(local_rank=1, pid=1, exitcode=1, error_file=str(path))
    assert shown.timestamp == 1000, "it shows the first one"
    assert "rank 1 on n1 vanished" in str(ChildFailedError("train", {1: shown}))
