"""metrics.jsonl and TensorBoard: what is written, that steps increase, what a resumed run forgets."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.errors import UserError
from engine.run_folder.metrics import MetricWriter, read_metrics
from engine.run_folder.paths import RunDir


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    return RunDir.claim(tmp_path)


def board(run_dir: RunDir) -> EventAccumulator:
    return EventAccumulator(str(run_dir.tensorboard)).Reload()


def scalars(run_dir: RunDir, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in board(run_dir).Scalars(tag)]


def steps(run_dir: RunDir, split: str | None = None) -> list[int]:
    return [record["step"] for record in read_metrics(run_dir.metrics, split)]


def test_records_are_lines_of_strict_json(run_dir: RunDir) -> None:
    writer = MetricWriter(run_dir)
    writer.write(50, 0.5, "train", {"loss": 0.1 + 0.2, "lr": 1e-3, "skipped_steps": 0})
    writer.write(100, 1.0, "val", {"top1": float("nan"), "loss": math.inf, "mAP": torch.tensor(0.5).item()})
    text = run_dir.metrics.read_text()

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    train, val = (json.loads(line, parse_constant=refuse) for line in text.splitlines())
    assert list(train) == ["step", "epoch", "split", "time", "loss", "lr", "skipped_steps"]
    assert (train["step"], train["epoch"], train["split"], train["loss"]) == (50, 0.5, "train", 0.1 + 0.2)
    assert abs(train["time"] - time.time()) < 100
    assert (val["top1"], val["loss"], val["mAP"]) == (None, None, 0.5)
    writer.close()


def test_each_line_is_there_at_once(run_dir: RunDir) -> None:
    writer = MetricWriter(run_dir, tensorboard=False)
    for step in range(1, 4):
        writer.write(step, 0.0, "train", {"loss": 1.0})
        assert steps(run_dir) == list(range(1, step + 1))


def test_steps_increase_within_a_split(run_dir: RunDir) -> None:
    writer = MetricWriter(run_dir, tensorboard=False)
    writer.write(10, 1.0, "train", {"loss": 1.0})
    writer.write(10, 1.0, "val", {"loss": 1.0})
    for step in (10, 9):
        with pytest.raises(ValueError, match="train records have reached step 10"):
            writer.write(step, 1.0, "train", {"loss": 1.0})
    writer.close()
    with pytest.raises(ValueError, match="train records have reached step 10"):
        MetricWriter(run_dir, tensorboard=False).write(10, 1.0, "train", {"loss": 1.0})
    assert steps(run_dir) == [10, 10]


def test_evaluations_from_outside_are_marked_and_may_repeat_a_step(run_dir: RunDir) -> None:
    run = MetricWriter(run_dir)
    run.write(10, 1.0, "val", {"top1": 0.5})
    evaluation = MetricWriter(run_dir)
    for _ in range(2):
        evaluation.write(5, 0.5, "val", {"top1": 0.4}, source="evaluate", checkpoint="best.pt")
    run.write(20, 2.0, "val", {"top1": 0.6})
    run.close()
    evaluation.close()
    assert [(r["step"], r.get("source"), r.get("checkpoint")) for r in read_metrics(run_dir.metrics, "val")] == [
        (10, None, None),
        (5, "evaluate", "best.pt"),
        (5, "evaluate", "best.pt"),
        (20, None, None),
    ]
    assert scalars(run_dir, "val/top1") == [(10, 0.5), (20, pytest.approx(0.6))]


def test_tensorboard_has_the_same_scalars_and_images(run_dir: RunDir) -> None:
    writer = MetricWriter(run_dir)
    writer.write(1, 0.5, "train", {"loss": 2.0, "images_per_second": 100.0})
    writer.write(2, 1.0, "train", {"loss": 1.0, "images_per_second": 110.0})
    writer.image("samples", np.zeros((8, 16, 3), np.uint8), 2)
    writer.close()
    assert scalars(run_dir, "train/loss") == [(1, 2.0), (2, 1.0)]
    tags = board(run_dir).Tags()
    assert sorted(tags["scalars"]) == ["train/images_per_second", "train/loss"]
    assert tags["images"] == ["samples"]
    (image,) = board(run_dir).Images("samples")
    assert (image.width, image.height) == (16, 8)


def test_a_resumed_run_writes_on_as_if_never_interrupted(run_dir: RunDir) -> None:
    first = MetricWriter(run_dir)
    for step in range(1, 8):
        first.write(step, step / 4, "train", {"loss": float(step)})
    first.write(4, 1.0, "val", {"top1": 0.5})
    first.write(3, 0.75, "val", {"top1": 0.4}, source="evaluate", checkpoint="step_00000003.pt")
    first.close()
    before = run_dir.metrics.read_text().splitlines()
    wait_for_the_next_second()
    second = MetricWriter(run_dir)
    second.resume_at(4)
    assert run_dir.metrics.read_text().splitlines() == [*before[:4], *before[7:]]
    for step in range(5, 9):
        second.write(step, step / 4, "train", {"loss": 10.0 * step})
    second.write(8, 2.0, "val", {"top1": 0.6})
    second.close()
    assert steps(run_dir, "train") == list(range(1, 9))
    expected = [(step, float(step)) for step in range(1, 5)] + [(step, 10.0 * step) for step in range(5, 9)]
    assert scalars(run_dir, "train/loss") == expected
    assert [step for step, _ in scalars(run_dir, "val/top1")] == [4, 8]


def test_an_evaluation_that_is_made_again_is_recorded_once(run_dir: RunDir) -> None:
    first = MetricWriter(run_dir)
    first.write(3, 0.75, "train", {"loss": 3.0})
    first.write(4, 1.0, "train", {"loss": 4.0, "lr": float("nan")})
    first.write(4, 1.0, "val", {"top1": 0.5})
    first.close()
    before = run_dir.metrics.read_text().splitlines()
    wait_for_the_next_second()
    second = MetricWriter(run_dir)
    second.resume_at(4, evaluated=False)
    assert run_dir.metrics.read_text().splitlines() == before[:2]
    second.write(4, 1.0, "val", {"top1": 0.5})
    second.write(5, 1.25, "train", {"loss": 5.0})
    second.close()
    assert scalars(run_dir, "train/loss") == [(3, 3.0), (4, 4.0), (5, 5.0)]
    assert scalars(run_dir, "val/top1") == [(4, 0.5)]


def wait_for_the_next_second() -> None:
    """TensorBoard reads event files in the order of their names, which hold the second in which they were made."""
    now = int(time.time())
    while int(time.time()) == now:
        time.sleep(0.01)


def test_resuming_at_the_beginning_forgets_everything(run_dir: RunDir) -> None:
    writer = MetricWriter(run_dir)
    writer.resume_at(0)
    writer.write(1, 0.1, "train", {"loss": 1.0})
    writer.resume_at(0)
    wait_for_the_next_second()
    assert steps(run_dir) == []
    writer.write(1, 0.1, "train", {"loss": 3.0})
    writer.close()
    assert steps(run_dir) == [1]
    assert scalars(run_dir, "train/loss") == [(1, 3.0)]


def test_images_of_the_beginning_are_there_once_when_it_is_repeated(run_dir: RunDir) -> None:
    for _ in range(3):  # the first two are killed before they save
        writer = MetricWriter(run_dir)
        writer.resume_at(0)
        writer.image("train_samples", np.zeros((4, 4, 3), np.uint8), 0)
        writer.write(1, 0.1, "train", {"loss": 1.0})
        writer.flush()
    writer.close()
    assert [event.step for event in board(run_dir).Images("train_samples")] == [0]
    assert scalars(run_dir, "train/loss") == [(1, 1.0)]


@pytest.mark.parametrize(("step", "missing"), [(0, False), (4, False), (5, True)])
def test_records_that_are_missing_are_told_from_those_that_were_not_due(
    run_dir: RunDir, caplog: pytest.LogCaptureFixture, step: int, missing: bool
) -> None:
    MetricWriter(run_dir, tensorboard=False).resume_at(step, every=5)
    assert ("are missing" in caplog.text) == missing


def test_a_torn_last_line_is_dropped(run_dir: RunDir) -> None:
    writer = MetricWriter(run_dir, tensorboard=False)
    writer.write(1, 0.1, "train", {"loss": 1.0})
    writer.close()
    whole = run_dir.metrics.read_text()
    torn = whole + whole[: len(whole) // 2]
    run_dir.metrics.write_text(torn)
    assert steps(run_dir) == [1]
    MetricWriter(run_dir, tensorboard=False).resume_at(5)
    assert run_dir.metrics.read_text() == whole
    run_dir.metrics.write_text(torn)
    MetricWriter(run_dir, tensorboard=False).write(2, 0.2, "train", {"loss": 1.0})
    assert steps(run_dir) == [1, 2]


def test_a_killed_writer_leaves_whole_lines_but_the_last_and_the_next_goes_on(run_dir: RunDir) -> None:
    script = """
import itertools, pathlib, sys
from engine.run_folder.metrics import MetricWriter
from engine.run_folder.paths import RunDir
writer = MetricWriter(RunDir(pathlib.Path(sys.argv[1])), tensorboard=False)
for step in itertools.count(1):
    writer.write(step, step / 7, "train", {f"metric_{i}": step / 3 for i in range(50)})
"""
    process = subprocess.Popen([sys.executable, "-c", script, os.fspath(run_dir.path)])
    while not run_dir.metrics.exists() or run_dir.metrics.stat().st_size < 1_000_000:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    whole = run_dir.metrics.read_bytes().rpartition(b"\n")[0] + b"\n"  # the kernel may end a write at a page's end
    written = steps(run_dir)
    assert written == list(range(1, len(written) + 1)) and len(written) == whole.count(b"\n") > 100
    with run_dir.metrics.open("ab") as file:
        file.write(b'{"step": 1000000, "epo')  # if it has not
    writer = MetricWriter(run_dir, tensorboard=False)
    writer.write(len(written) + 1, 0.0, "train", {"loss": 1.0})
    assert steps(run_dir) == [*written, len(written) + 1]
    assert run_dir.metrics.read_bytes().startswith(whole) and run_dir.metrics.read_bytes().endswith(b"}\n")


def test_without_tensorboard_there_are_no_event_files(run_dir: RunDir) -> None:
    writer = MetricWriter(run_dir, tensorboard=False)
    writer.write(1, 0.1, "train", {"loss": 1.0})
    writer.image("samples", np.zeros((8, 8, 3), np.uint8), 1)
    writer.close()
    assert [path.name for path in run_dir.path.iterdir()] == ["metrics.jsonl"]


def test_broken_files_are_named(run_dir: RunDir) -> None:
    with pytest.raises(UserError, match=r"metrics\.jsonl: cannot be read: No such file"):
        read_metrics(run_dir.metrics)
    run_dir.metrics.write_text('{"step": 1, "split": "train"}\n[]\n{}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: is not a record of metrics: '\[\]'; remove this line"):
        read_metrics(run_dir.metrics)
