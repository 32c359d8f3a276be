"""Runs that go wrong, from outside: who is named, what is left, and how soon all ranks have ended."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.checkpoints import store
from engine.run_folder.metrics import read_metrics
from engine.run_folder.paths import RunDir
from tests.distributed import ROOT, Ended, Group, clean_environment, launch

ALL_GONE_SECONDS = 15.0
"""What the contract gives all ranks after one of them has gone."""


def configure(folder: Path, **sections: dict[str, Any]) -> Path:
    base: dict[str, dict[str, Any]] = {
        "experiment": {"root": str(folder / "experiments")},
        "training": {"global_batch_size": 6, "epochs": 10, "precision": "fp32"},
        "optimizer": {"lr": 0.01},
        "checkpoint": {"every_steps": 2},
        "logging": {"every_steps": 1, "tensorboard": False},
        "distributed": {"device": "cpu"},
    }
    merged = {name: {**base.get(name, {}), **sections.get(name, {})} for name in {**base, **sections}}
    (folder / "toy.yaml").write_text(yaml.safe_dump(merged))
    return folder / "toy.yaml"


def command(config: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.engine.faulty", "--config", str(config), *arguments]


def experiment(config: Path) -> Path:
    return config.parent / "experiments" / "experiment_0001"


def failure(config: Path) -> dict[str, Any]:
    return json.loads((experiment(config) / "FAILED.json").read_text())


def last_line(config: Path, rank: int = 0) -> str:
    return (experiment(config) / "logs" / f"rank_{rank}.log").read_text().splitlines()[-1]


def status(config: Path) -> dict[str, Any]:
    return json.loads((experiment(config) / "status.json").read_text())


def run(world_size: int, config: Path, fault: str, *arguments: str) -> list[Ended]:
    return launch(world_size, command(config, *arguments), env={"FAULT": fault, "SECONDS": "0.02"})


def test_a_rank_that_raises_is_named_and_ends_all(tmp_path: Path) -> None:
    config = configure(tmp_path)
    ended = run(2, config, "raise 1 5")
    assert [rank.returncode for rank in ended] == [1, 1]
    found = failure(config)
    assert (found["rank"], found["step"], found["exception"], found["retry"]) == (1, 4, "ValueError", False)
    assert "the seventh seal is broken" in found["reason"]
    assert "in _go_wrong" in found["traceback"]
    for rank in (0, 1):
        assert "rank 1 on" in last_line(config, rank) and "the seventh seal is broken" in last_line(config, rank)
    assert "the seventh seal is broken" in ended[0].output
    assert status(config)["state"] == "failed"


@pytest.mark.parametrize("world_size", [1, 2])
def test_ctrl_c_twice_ends_a_run_at_once_and_leaves_it_interrupted(tmp_path: Path, world_size: int) -> None:
    config = configure(tmp_path)
    with Group(world_size, command(config), env={"SECONDS": "60"}) as group:
        while not (experiment(config) / "README.md").exists():
            assert group.processes[0].poll() is None, group.output(0)
            time.sleep(0.01)
        ending = "ended at once, without saving"
        while waiting := [rank for rank in range(world_size) if ending not in group.output(rank)]:
            for rank in waiting:
                group.processes[rank].send_signal(signal.SIGINT)
            time.sleep(0.05)
        ended = group.wait()
    assert ended[0].returncode == 130 and not (experiment(config) / "FAILED.json").exists()
    assert status(config)["state"] == "interrupted"
    assert "state **interrupted**" in (experiment(config) / "README.md").read_text()


def test_a_single_process_that_raises_reports_itself(tmp_path: Path) -> None:
    config = configure(tmp_path)
    (ended,) = run(1, config, "raise 0 5")
    assert ended.returncode == 1
    assert (failure(config)["rank"], failure(config)["step"]) == (0, 4)
    assert "the seventh seal is broken" in last_line(config)
    assert "in _go_wrong" in ended.output, "its traceback is logged"


def test_a_rank_that_is_killed_is_named_by_a_survivor(tmp_path: Path) -> None:
    config = configure(tmp_path)
    with Group(3, command(config), env={"FAULT": "kill 1 5", "SECONDS": "0.02"}) as group:
        assert group.processes[1].wait(60) == -signal.SIGKILL
        deadline = time.monotonic() + ALL_GONE_SECONDS
        codes = [group.processes[rank].wait(deadline - time.monotonic()) for rank in (0, 2)]
        assert codes == [1, 1], group.output(0)
        assert "rank 1 on" in group.output(0) and "vanished" in group.output(0)
    assert failure(config)["rank"] == 1
    assert "vanished, last heard of at step" in failure(config)["reason"]
    assert "vanished" in last_line(config)


def test_the_first_rank_killed_is_named_by_another(tmp_path: Path) -> None:
    config = configure(tmp_path)
    with Group(2, command(config), env={"FAULT": "kill 0 5", "SECONDS": "0.02"}) as group:
        assert group.processes[0].wait(60) == -signal.SIGKILL
        assert group.processes[1].wait(ALL_GONE_SECONDS) == 1
    assert failure(config)["rank"] == 0
    assert "rank 0 on" in last_line(config, 1)
    assert status(config)["state"] == "failed"
    assert "state **failed**" in (experiment(config) / "README.md").read_text()


def test_a_rank_that_hangs_is_named_with_the_stacks_of_all(tmp_path: Path) -> None:
    config = configure(tmp_path, distributed={"device": "cpu", "timeout_seconds": 3})
    ended = run(2, config, "sleep 1 5")
    assert [rank.returncode for rank in ended] == [1, 1]
    found = failure(config)
    assert found["rank"] == 1 and "hangs at step 4" in found["reason"]
    assert found["retry"] and found["host"]
    assert "time.sleep(3600)" in found["traceback"]
    logs = [(experiment(config) / "logs" / f"rank_{rank}.log").read_text() for rank in (0, 1)]
    assert "time.sleep(3600)" in logs[1]
    assert "backward" in logs[0]  # where the other one waits
    assert "time.sleep(3600)" not in ended[0].output
    assert "rank 1 on" in last_line(config) and "hangs" in last_line(config)


def test_a_first_step_that_takes_longer_than_others_may_is_no_hang(tmp_path: Path) -> None:
    config = configure(tmp_path, distributed={"device": "cpu", "timeout_seconds": 3, "start_timeout_seconds": 60})
    (ended,) = launch(1, command(config, "training.epochs=null", "training.steps=1"), env={"SECONDS": "6"})
    assert ended.returncode == 0, ended.output


def test_a_rank_that_was_stopped_writes_nothing_into_a_folder_that_others_took_over(tmp_path: Path) -> None:
    config = configure(tmp_path, distributed={"device": "cpu", "timeout_seconds": 3})
    with Group(2, command(config), env={"SECONDS": "0.05"}) as group:
        while not (experiment(config) / "checkpoints" / "step_00000004.pt").exists():
            assert group.processes[0].poll() is None, group.output(0)
            time.sleep(0.02)
        group.processes[1].send_signal(signal.SIGSTOP)
        assert group.processes[0].wait(60) == 1
        (ended,) = run(1, config, "none -1 -1", "--resume", str(experiment(config)))
        assert ended.returncode == 0, ended.output
        group.processes[1].send_signal(signal.SIGCONT)
        group.processes[1].wait(30)
    assert status(config)["state"] == "finished"
    assert not (experiment(config) / "FAILED.json").exists()
    assert not (experiment(config) / "FAILED_2.json").exists()


def test_a_mistake_of_the_user_that_one_rank_finds_is_one_message(tmp_path: Path) -> None:
    config = configure(tmp_path)
    ended = run(2, config, "user 1 5")
    assert [rank.returncode for rank in ended] == [2, 2]
    assert ended[0].output.count("images/0815.jpg cannot be read") == 1
    assert "error: data: images/0815.jpg" in ended[0].output
    assert "0815.jpg" not in ended[1].output, "srun shows what all ranks write"
    assert "Traceback" not in ended[0].output + ended[1].output
    assert failure(config)["exit_code"] == 2


def test_ranks_end_when_their_launcher_dies(tmp_path: Path) -> None:
    config = configure(tmp_path)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m"]
    environment = clean_environment({"FAULT": "launcher 1 5", "SECONDS": "0.02"})
    with subprocess.Popen(
        [*torchrun, *command(config)[2:]], cwd=ROOT, env=environment, stderr=subprocess.PIPE
    ) as agent:
        assert agent.wait(90) == -signal.SIGKILL
        deadline = time.monotonic() + ALL_GONE_SECONDS
        while (alive := living(config)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not alive
    assert "launcher" in failure(config)["reason"]
    assert "launcher" in last_line(config)


def living(config: Path) -> list[int]:
    """Processes of that run."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(config).encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_losses_that_stay_infinite_stop_the_run(tmp_path: Path) -> None:
    config = configure(tmp_path, training={"max_nonfinite_steps": 3, "global_batch_size": 6, "epochs": 10})
    ended = run(2, config, "nan 1 6")
    assert [rank.returncode for rank in ended] == [1, 1]
    assert "3 steps in a row" in last_line(config) and "lower optimizer.lr" in last_line(config)
    assert failure(config)["exception"] == "NonFiniteError"
    assert sorted(path.name for path in (experiment(config) / "checkpoints").glob("step_*.pt")) == [
        "step_00000004.pt",
        "step_00000006.pt",
    ]


def test_a_run_whose_last_steps_were_skipped_says_whose_weights_it_leaves(tmp_path: Path) -> None:
    config = configure(tmp_path, training={"epochs": None, "steps": 5})
    (ended,) = run(1, config, "nan 0 4")
    assert ended.returncode == 0
    said = "the last 2 steps were skipped, not being finite: the weights are those of step 3"
    assert f"warning: {said}; lower optimizer.lr" in ended.output
    readme = experiment(config) / "README.md"
    assert said in readme.read_text()
    run(1, config, "none 0 0", "--resume", str(experiment(config)), "training.steps=7")
    assert status(config)["step"] == 7
    assert "skipped, not being finite" not in readme.read_text() and "skipped_in_row" not in status(config)


def test_a_failure_is_kept_under_a_number_once_a_later_start_has_passed_it(tmp_path: Path) -> None:
    config = configure(tmp_path)
    run(1, config, "raise 0 5")
    (ended,) = run(1, config, "none -1 -1", "--resume", str(experiment(config)))
    assert ended.returncode == 0
    assert not (experiment(config) / "FAILED.json").exists()
    assert json.loads((experiment(config) / "FAILED_1.json").read_text())["step"] == 4
    assert status(config)["state"] == "finished"


def test_a_start_records_that_the_last_one_ended_without_a_word(tmp_path: Path) -> None:
    config = configure(tmp_path)
    (ended,) = run(1, config, "kill 0 30")
    assert ended.returncode == -signal.SIGKILL
    assert not (experiment(config) / "FAILED.json").exists()
    (ended,) = run(1, config, "none -1 -1", "--resume", str(experiment(config)))
    assert ended.returncode == 0
    assert "ended without a word" in ended.output
    assert "ended without a word" in json.loads((experiment(config) / "FAILED_1.json").read_text())["reason"]


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_run_killed_twice_ends_with_the_losses_of_one_that_was_not(tmp_path: Path, world_size: int) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole, killed = (configure(tmp_path / name) for name in ("whole", "killed"))
    assert {rank.returncode for rank in run(world_size, whole, "none -1 -1")} == {0}
    last = world_size - 1
    run(world_size, killed, f"kill {last} 5")
    run(world_size, killed, f"kill {last} 9", "--resume", str(experiment(killed)))
    run(world_size, killed, "none -1 -1", "--resume", str(experiment(killed)))
    untimed = ("step", "split", "loss", "grad_norm", "lr")
    records = [
        [tuple(record.get(key) for key in untimed) for record in read_metrics(experiment(config) / "metrics.jsonl")]
        for config in (whole, killed)
    ]
    assert len(records[0]) == 90
    assert records[0] == records[1]
    assert status(killed)["state"] == "finished"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def test_a_disk_that_is_full_for_a_while_costs_nothing(small_disk: Path, tmp_path: Path) -> None:
    logging = {"every_steps": 1, "tensorboard": True}
    config = configure(tmp_path, experiment={"root": str(small_disk)}, logging=logging)
    folder = small_disk / "experiment_0001"
    with Group(1, command(config), env={"SECONDS": "0.1"}) as group:
        while not (folder / "checkpoints" / "step_00000004.pt").exists():
            assert group.processes[0].poll() is None, group.output(0)
            time.sleep(0.02)
        fill(small_disk / "ballast")
        deadline = time.monotonic() + 60
        while "training goes on" not in group.output(0):
            assert time.monotonic() < deadline and group.processes[0].poll() is None, group.output(0)
            time.sleep(0.02)
        assert store.newest(folder / "checkpoints", print) is not None
        (small_disk / "ballast").unlink()
        (ended,) = group.wait(120)
    assert ended.returncode == 0, ended.output
    assert "saving works again" in ended.output
    assert "Traceback" not in ended.output
    assert [record["step"] for record in read_metrics(folder / "metrics.jsonl", "train")] == list(range(1, 81))
    newest = store.newest(folder / "checkpoints", print)
    assert newest is not None and newest.name == "step_00000080.pt"
    board = EventAccumulator(str(RunDir(folder).tensorboard)).Reload()
    assert [event.step for event in board.Scalars("train/loss")] == list(range(1, 81))
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
