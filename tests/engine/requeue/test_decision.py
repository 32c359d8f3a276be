"""What a job's script is told when srun has ended."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from engine.requeue.decision import main
from engine.run_folder.failure import Failure, write_failure
from engine.run_folder.paths import RunDir


def test_a_signal_that_ended_srun_is_added_to_the_failure(tmp_path: Path) -> None:
    folder = RunDir.claim(tmp_path)
    main([str(folder.path), "137", str(time.time())])
    assert "SIGKILL: usually out of memory" in folder.failed.read_text()


def test_the_launch_script_is_told_what_to_try_again_and_which_node_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunDir.claim(tmp_path)
    devices = [{"rank": 0, "node": "n0"}, {"rank": 1, "node": "n1"}]
    folder.environment.write_text(json.dumps({"devices": [], "restarts": [{"devices": devices}]}))

    def told(failure: Failure | None, status: int, since: float = 0.0) -> list[str]:
        folder.failed.unlink(missing_ok=True)
        if failure is not None:
            write_failure(folder.failed, failure)
        main([str(folder.path), str(status), str(since)])
        return capsys.readouterr().out.splitlines()

    for status in (1, 134, 137):
        assert told(Failure(1, "host", 7, "rank 1 on host hangs", retry=True), status) == [
            *("retry", "n1", "rank 1 on host hangs")
        ]
        assert told(Failure(1, "host", 7, "rank 1 on host failed: ValueError"), status) == ["end", "1"]
    assert told(Failure(None, "host", 7, "all ranks stand", retry=True), 1) == ["retry", "", "all ranks stand"]
    assert told(None, 1) == []
    assert told(None, 137) == ["retry", "", ""]
    assert told(Failure(1, "host", 7, "of an earlier start", retry=True), 1, time.time() + 60) == []
