"""The chaos run: that its comparisons find what is wrong, and a run that is really killed and ends in the same bits."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from engine.data.batch_plan import BatchLayout, Draw, NaturalOrder
from engine.data.loaders import MicroBatchSampler
from engine.errors import UserError
from tests.classification.small import write_config
from tests.distributed import clean_environment
from tools.chaos import compare, samples
from tools.chaos.__main__ import main, task_of
from tools.chaos.diary import Diaries, DiaryWriter, Epoch, Fed, diary_file
from tools.chaos.plan import VICTIMS, plan_kills
from tools.chaos.processes import Start
from tools.chaos.report import check_results
from tools.chaos.rounds import Run

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "classification" / "chaos.yaml"

SECTIONS = {
    "model": {"patch_size": 4, "drop_path": 0.2, "drop_rate": 0.1},
    "data": {"source": "digits", "image_size": 16, "workers": 1, "drop_last": False},
    "augmentation": {"mixup": 0.8, "randaugment": "rand-m5-mstd0.5"},
    "training": {"steps": 48, "global_batch_size": 168, "accumulation": 2, "ema": {"decay": 0.99}},
    "evaluation": {"every_epochs": 3},
    "logging": {"every_steps": 3},
    "checkpoint": {"every_steps": 4},
}
"""Nine steps an epoch. Its last one has 93 samples for four slots of 42: one is short, and one empty."""


def chaos(*arguments: object, timeout: float = 1800.0) -> subprocess.CompletedProcess[str]:
    """Runs the command; one that takes too long is asked to end, so that it can end its own processes."""
    command = [sys.executable, "-m", "tools.chaos", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=clean_environment(), text=True, **pipes) as process:
        try:
            output, error = process.communicate(timeout=timeout)
        finally:
            process.terminate()
    return subprocess.CompletedProcess(command, process.returncode, output, error)


# -- plans ---------------------------------------------------------------------------------------------------------


def test_kills_are_spread_over_the_run_and_follow_from_the_seed():
    kills = plan_kills(30, 300, 0.05, seed=4)
    assert kills == plan_kills(30, 300, 0.05, seed=4) != plan_kills(30, 300, 0.05, seed=5)
    steps = [kill.step for kill in kills]
    assert steps == sorted(steps) and steps[0] >= 1 and steps[-1] <= 270
    assert max(steps) - min(steps) > 150 and 15 < len(set(steps)) < 30, "spread, and some at the same step"
    for first in range(0, 28, 4):
        assert {kill.victim for kill in kills[first : first + 4]} == set(VICTIMS)
    assert {kill.moment for kill in kills} == {"step", "save", "start"}
    assert all(kill.step <= kill.latest <= 270 for kill in kills)


def test_more_kills_than_a_run_has_steps_for_are_refused():
    with pytest.raises(UserError, match=r"30 kills need a run of 60 steps or more, but this one has 59"):
        plan_kills(30, 59, 0.05, seed=0)


# -- comparisons of results ----------------------------------------------------------------------------------------


def test_a_flipped_bit_is_found_and_named():
    saved = {"run": {"step": 3, "loss": float("nan")}, "model": {"bias": torch.tensor([[0.0, 1.0], [2.0, 3.0]])}}
    other = {"run": {"step": 3, "loss": float("nan")}, "model": {"bias": saved["model"]["bias"].clone()}}
    assert compare.tree_difference(saved, other) is None
    other["model"]["bias"].view(torch.int32)[1, 0] ^= 1
    found = compare.tree_difference(saved, other)
    assert found is not None and found.startswith("model.bias: 1 of 4 elements differ, first [2]: 2.0 != 2.0000002")
    other["model"]["bias"] = torch.tensor([[-0.0, 1.0], [2.0, 3.0]])
    assert "first [0]: 0.0 != -0.0" in (compare.tree_difference(saved, other) or "")


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"a": [1, 2.0], "b": 1}, "the whole: only in one of them: b"),
        ({"a": [1]}, "a: 2 entries != 1"),
        ({"a": [1, 2]}, "a[1]: float != int"),
        ({"a": [1, 2.0000000000000004]}, "a[1]: 2.0 != 2.0000000000000004"),
    ],
)
def test_what_differs_in_a_tree_is_named(other, named):
    assert compare.tree_difference({"a": [1, 2.0]}, other) == named
    assert compare.tree_difference({"a": torch.ones(2)}, {"a": torch.ones(2, dtype=torch.float64)}) is not None


def write_records(path: Path, losses: list[tuple[int, str]], time: float = 1.0) -> Path:
    lines = [f'{{"step": {step}, "split": "train", "time": {time}, "loss": {loss}}}' for step, loss in losses]
    lines.append('{"step": 4, "split": "val", "time": 2.0, "top1": 0.5}')
    path.write_text("\n".join(lines) + "\n")
    return path


def test_records_are_compared_number_by_number_but_for_times(tmp_path):
    one = write_records(tmp_path / "one", [(2, "0.5"), (4, "0.30000000000000004")])
    same = write_records(tmp_path / "same", [(2, "0.5"), (4, "0.30000000000000004")], time=7.0)
    digit = write_records(tmp_path / "digit", [(2, "0.5"), (4, "0.30000000000000003")])
    short = write_records(tmp_path / "short", [(2, "0.5")])
    assert compare.records_difference(one, same, "train") is None
    assert "step 4: loss 0.30000000000000004 != 0.30000000000000003" in compare.records_difference(one, digit, "train")
    assert compare.records_difference(one, digit, "val") is None
    assert compare.records_difference(one, short, "train") == "step 4 is only in the reference"
    assert compare.records_difference(short, one, "train") == "step 4 is only in the killed run"


def test_a_doubled_step_and_a_missing_end_are_found(tmp_path):
    right = write_records(tmp_path / "right", [(2, "1"), (4, "1")])
    twice = write_records(tmp_path / "twice", [(2, "1"), (2, "1"), (4, "1")])
    assert compare.metrics_order_fault(right, 4) is None
    assert compare.metrics_order_fault(twice, 4) == "train: step 2 comes after step 2"
    assert compare.metrics_order_fault(right, 5) == "train: ends at step 4, not 5"


def write_board(folder: Path, *parts: tuple[range, int | None]) -> Path:
    """One event file for each part: its steps, and the purge_step that it begins with."""
    for number, (steps, purge_step) in enumerate(parts):
        with SummaryWriter(str(folder), purge_step=purge_step, filename_suffix=f".{number}") as board:
            for step in steps:
                board.add_scalar("train/loss", 1.0, step)
        (written,) = folder.glob("events.out.tfevents.*.*.*")
        written.rename(folder / f"events.out.tfevents.{number}")  # TensorBoard reads files in the order of their names
    return folder


def test_tensorboard_is_read_as_a_user_sees_it(tmp_path):
    whole = write_board(tmp_path / "whole", (range(1, 9), 1))
    resumed = write_board(tmp_path / "resumed", (range(1, 7), 1), (range(4, 9), 4))
    doubled = write_board(tmp_path / "doubled", (range(1, 7), 1), (range(4, 9), None))
    gap = write_board(tmp_path / "gap", (range(1, 4), 1), (range(5, 9), 5))
    assert compare.board_fault(whole, resumed, 8) is None
    assert compare.board_fault(whole, doubled, 8) == "train/loss: step 4 comes after step 6"
    assert compare.board_fault(whole, gap, 8) == "train/loss: 7 steps, but 8 in the reference"
    assert compare.board_fault(whole, resumed, 9) == "train/loss: ends at step 8, not 9"
    lacking = write_board(tmp_path / "lacking", (range(1, 9), 1))
    for folder, steps in ((whole, (0, 5)), (resumed, (0, 5)), (lacking, (0,))):
        with SummaryWriter(str(folder), filename_suffix=".images") as board:
            for step in steps:
                board.add_image("train_samples", np.zeros((4, 4, 3), np.uint8), step, dataformats="HWC")
    assert compare.board_fault(whole, resumed, 8) is None, "images need not go on to the end"
    assert compare.board_fault(whole, lacking, 8) == "train_samples: ends at step 0, not 5"


def test_a_status_that_is_not_finished_or_differs_is_found(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text(json.dumps({"state": "finished", "step": 9, "best": {"top1": 0.5}, "updated": 1.0}))
    two.write_text(json.dumps({"state": "finished", "step": 9, "best": {"top1": 0.5}, "updated": 2.0}))
    assert compare.status_difference(one, two) is None
    two.write_text(json.dumps({"state": "finished", "step": 9, "best": {"top1": 0.6}, "updated": 2.0}))
    assert compare.status_difference(one, two) == "best.top1: 0.5 != 0.6"
    two.write_text(json.dumps({"state": "running", "updated": 2.0}))
    assert compare.status_difference(one, two) == "state is running"


# -- samples -------------------------------------------------------------------------------------------------------

CUT = BatchLayout(num_samples=29, global_batch_size=8, accumulation=2, world_size=2, drop_last=False)
STEPS = 10
"""Two epochs of four steps, of which the last has no sample for one slot, and half of a third."""


def due(cut: BatchLayout) -> Epoch:
    """What the settings of ``cut`` ask for, however it cuts."""
    return Epoch(cut.num_samples, cut.global_batch_size, cut.drop_last)


def fed_by(first: int, last: int, layout: BatchLayout = CUT) -> list[Fed]:
    """What the suite's own loader gives all ranks in the steps from ``first`` to before ``last``."""
    order = NaturalOrder(layout.num_samples, seed=1)
    found = []
    for rank in range(layout.world_size):
        sampler = MicroBatchSampler(order, layout, rank, first, last)
        for slot, draws in zip(sampler.slots(), sampler, strict=True):
            found.append(Fed(slot.step, slot.micro_step, rank, 1, tuple(draws)))
    return found


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("num_samples", [24, 25, 29, 30])
def test_a_run_resumed_twice_has_had_every_sample(num_samples, drop_last):
    cut = replace(CUT, num_samples=num_samples, drop_last=drop_last)
    starts = [fed_by(0, 4, cut), fed_by(3, 6, cut), fed_by(5, STEPS, cut)]
    fed = samples.last_fed(starts)
    assert samples.repeat_fault(starts) is None
    assert samples.epochs_fault(fed, due(cut), STEPS) is None
    assert samples.difference(samples.last_fed([fed_by(0, STEPS, cut)]), fed) is None


def spoilt(change) -> dict:
    fed = samples.last_fed([fed_by(0, STEPS)])
    change(fed)
    return fed


def exchange(fed: dict, place: tuple[int, int, int], **changes: int) -> None:
    """Gives the first draw at ``place`` another index, epoch or position."""
    first, *others = fed[place].draws
    fed[place] = replace(fed[place], draws=(replace(first, **changes), *others))


def test_a_missing_or_doubled_sample_is_found_and_named():
    whole = samples.last_fed([fed_by(0, STEPS)])
    second = whole[1, 0, 0].draws[0].index
    lost = spoilt(lambda fed: fed.pop((2, 1, 0)))
    assert samples.epochs_fault(lost, due(CUT), STEPS) == "epoch 0: step 2, micro-step 1, rank 0 is missing"
    assert samples.difference(whole, lost) == "step 2, micro-step 1, rank 0 is missing in the killed run"
    twice = spoilt(lambda fed: exchange(fed, (6, 0, 0), index=whole[4, 0, 0].draws[0].index))
    assert "came twice, at positions 0 and 16" in samples.epochs_fault(twice, due(CUT), STEPS)
    assert "step 6, micro-step 0, rank 0: samples" in samples.difference(whole, twice)
    early = spoilt(lambda fed: exchange(fed, (1, 0, 0), epoch=1))
    assert (
        samples.epochs_fault(early, due(CUT), STEPS)
        == f"epoch 0: step 1, micro-step 0, rank 0 had sample {second} of epoch 1"
    )
    skipped = spoilt(lambda fed: exchange(fed, (1, 0, 0), position=9))
    assert "up to step 1 positions 0 to 15 are due, but 8 is missing" in samples.epochs_fault(skipped, due(CUT), STEPS)
    short = spoilt(lambda fed: fed.update({(3, 0, 0): replace(fed[3, 0, 0], draws=fed[3, 0, 0].draws[:1])}))
    assert "up to step 3 positions 0 to 28 are due, but 25 is missing" in samples.epochs_fault(short, due(CUT), STEPS)
    assert "beyond the run's 9 steps" in samples.epochs_fault(whole, due(CUT), 9)


@pytest.mark.parametrize(("drop_last", "steps", "due_of", "had"), [(False, 3, 0, 1), (True, 4, 1, 0)])
def test_a_short_batch_dropped_or_kept_against_the_setting_is_found(drop_last, steps, due_of, had, monkeypatch):
    monkeypatch.setattr(BatchLayout, "steps_per_epoch", steps)
    cut = replace(CUT, drop_last=drop_last)
    found = samples.epochs_fault(samples.last_fed([fed_by(0, STEPS, cut)]), due(cut), STEPS) or ""
    assert re.fullmatch(rf"epoch {due_of}: step 3, micro-step 0, rank 0 had sample \d+ of epoch {had}", found), found


def test_repeated_steps_with_other_samples_are_found():
    again = fed_by(3, 6)
    again[2] = replace(again[2], draws=(Draw(99, 1, 0), *again[2].draws[1:]))
    found = samples.repeat_fault([fed_by(0, 4), fed_by(3, 5), again, fed_by(4, STEPS)])
    assert found is not None and found.startswith("step 4, micro-step 0, rank 0 had samples") and "in start 2" in found


def test_a_diary_is_readable_while_it_is_written(tmp_path):
    writer, diaries = DiaryWriter(tmp_path, 1, due(CUT)), Diaries(tmp_path, 2)
    writer.fed(7, 0, 4711, [[5, 0, 56], [6, 0, 57]])
    with diary_file(tmp_path, 1).open("a") as file:
        file.write('{"step": 7, "micro_')
    diaries.read()
    assert diaries.epoch == due(CUT)
    assert [*diaries.fed] == [Fed(7, 0, 1, 4711, (Draw(5, 0, 56), Draw(6, 0, 57)))]
    with diary_file(tmp_path, 1).open("a") as file:
        file.write('step": 1, "reader": 4711, "draws": []}\n')
    diaries.read()
    assert [fed.place for fed in diaries.fed] == [(7, 0, 1), (7, 1, 1)]
    assert (diaries.step, diaries.first_step, diaries.readers(0), diaries.readers(1)) == (7, 7, [], [4711])


# -- real processes ------------------------------------------------------------------------------------------------


def test_what_is_left_of_a_start_is_killed_and_reported(tmp_path):
    config = write_config(tmp_path, **SECTIONS)
    with Start("classification", ["--config", str(config)], 2, tmp_path / "diary", tmp_path / "log") as start:
        while {process.rank for process in start.living()} < {None, "0", "1"}:
            assert start.code() is None, start.log.read_text()
        assert start.wait_gone(timeout=0.0) is None
        assert not start.living() and start.code() == -9


def test_a_run_that_fails_in_peace_is_the_users_business(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = write_config(tmp_path, training={"step": 50})
    arguments = ["--config", str(config), "--kills", "1", "--output", str(tmp_path / "out")]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "--task is needed" in error and re.search(r"as classification: .*did you mean 'steps'\?", error)
    arguments += ["--task", "classification"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "the run fails even when it is left in peace" in error and "did you mean 'steps'?" in error
    assert main(arguments) == 2
    assert "holds a reference run already" in capsys.readouterr().err


@pytest.fixture(scope="module")
def killed_thrice(tmp_path_factory) -> tuple[Path, str]:
    """Both runs of a chaos run of two ranks, and what it printed."""
    folder = tmp_path_factory.mktemp("chaos")
    config = write_config(folder, **SECTIONS)
    arguments = ["--ranks", 2, "--kills", 3, "--seed", 48, "--output", folder / "runs", "--keep"]
    ended = chaos("--config", config, *arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder / "runs", ended.stdout


def test_two_ranks_killed_three_times_end_in_the_same_bits(killed_thrice):
    folder, output = killed_thrice
    assert "no fault(s) after 3 kills" in output and "FAIL" not in output
    for name in ("model", "ema", "optimizer", "run"):
        assert f"ok    checkpoint: {name}\n" in output
    struck = [line.split()[2] for line in output.splitlines() if line.startswith(("   1", "   2", "   3"))]
    assert sorted(struck) == ["launcher", "rank", "worker"], output
    assert (folder / "reference" / "start_00.log").read_text().count("steps an epoch") == 1
    resumed = Diaries(folder / "killed" / "diary_03", 2).read().first_step
    assert resumed is not None and resumed > 0, "the last start did not begin anew"


def test_each_fault_in_a_killed_run_is_seen_by_its_own_check(killed_thrice, tmp_path):
    runs = [Run(killed_thrice[0] / name, "classification", tmp_path, [], 2) for name in ("reference", "killed")]
    assert not [check for check in check_results(*runs) if check.fault]
    experiment = runs[1].experiment
    assert experiment is not None
    last = experiment / "checkpoints" / "last.pt"
    saved = torch.load(last, weights_only=True)
    bias = saved["ema"]["head.fc.bias" if "head.fc.bias" in saved["ema"] else next(iter(saved["ema"]))]
    bias.view(torch.int32).view(-1)[0] ^= 1
    torch.save(saved, last)
    metrics = experiment / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + metrics.read_text().splitlines()[-1] + "\n")
    diary = diary_file(killed_thrice[0] / "killed" / "diary_03", 0)
    diary.write_text("\n".join(diary.read_text().splitlines()[:-1]) + "\n")
    faults = {check.name for check in check_results(*runs) if check.fault}
    assert {name for name in faults if name != "val records"} == {
        "checkpoint: ema",
        "steps of metrics.jsonl",
        "1437 samples once an epoch",
        "samples of each step",
    }


@pytest.mark.full
@pytest.mark.parametrize(
    "ranks, settings", [(1, []), (2, []), (3, ["training.shard=optimizer", "training.grad_comm=bf16"])]
)
def test_thirty_kills(ranks, settings, tmp_path):
    ended = chaos("--config", CONFIG, "--ranks", ranks, "--kills", 30, "--seed", ranks, *settings, timeout=3600.0)
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.full
def test_a_detector_is_killed(tmp_path):
    config = ROOT / "configs" / "detection" / "chaos.yaml"
    ended = chaos("--task", "detection", "--config", config, "--ranks", 2, "--kills", 10, timeout=1800.0)
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.full
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_diffusion_is_killed(ranks, tmp_path):
    config = ROOT / "configs" / "diffusion" / "chaos.yaml"
    ended = chaos("--task", "diffusion", "--config", config, "--ranks", ranks, "--kills", 30, timeout=3600.0)
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("task", ["classification", "detection", "diffusion"])
def test_the_task_is_the_one_that_can_read_the_configuration(task: str):
    config = ROOT / "configs" / task / "quickstart.yaml"
    assert task_of(config, []) == task
    with pytest.raises(UserError, match=r"--task is needed: no task can read .*quickstart.yaml"):
        task_of(config, ["nothing.like=it"])
