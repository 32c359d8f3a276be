"""Whole runs by their commands: trained, killed, resumed, sampled, and sampled again."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffusion import load_sampler
from diffusion.config import DiffusionConfig
from diffusion.spec import SPEC
from diffusion.task import DiffusionTask
from engine.checkpoints import store
from engine.commands.arguments import EvaluateArguments
from engine.commands.evaluate import run_evaluation
from engine.commands.resume import allowed_changes
from engine.config.load import load_config
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.run_folder.metrics import read_metrics
from engine.run_folder.paths import RunDir
from engine.task.moved_data import check_same_data
from tests.diffusion.small import SAMPLE, TRAIN, write_config
from tests.distributed import Group, launch
from tools.chaos.compare import checkpoint_differences, records_difference


def run(world_size: int, command: Sequence[str], code: int = 0) -> str:
    ended = launch(world_size, [*command])
    assert [end.returncode for end in ended] == [code] * world_size, ended[0].output
    return ended[0].output


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A finished run of two evaluations, on two ranks."""
    folder = tmp_path_factory.mktemp("run")
    evaluation = {"every_steps": 3, "metric": "loss_second_ema"}
    changes = {"training": {"ema": {"second_decay": 0.5}}, "evaluation": evaluation}
    run(2, [*TRAIN, "--config", str(write_config(folder, **changes))])
    return RunDir(folder / "experiments" / "experiment_0001")


def sampled(folder: RunDir) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder.results / "samples").glob("*.png"))}


def test_a_run_shows_its_progress_at_every_evaluation(finished: RunDir) -> None:
    files = {path.name for path in finished.results.iterdir()}
    assert {"train_samples.png", "grid_00000003.png", "grid_00000006.png", "progress.png", "curves.png"} <= files
    board = EventAccumulator(str(finished.tensorboard)).Reload()
    assert [event.step for event in board.Images("val/grid")] == [3, 6]
    record = read_metrics(finished.metrics, "val")[-1]
    assert {"loss", "loss_bin_1", "loss_bin_4", "loss_second_ema"} <= set(record)
    assert json.loads(finished.status.read_text())["best"]["loss_second_ema"] <= record["loss_second_ema"]


def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    changes = {"training": {"steps": 40, "ema": {}}, "checkpoint": {"every_steps": 2}, "data": {"workers": 1}}
    config = write_config(tmp_path, **changes)
    reference, killed = (RunDir(tmp_path / "experiments" / f"experiment_000{n}") for n in (1, 2))
    run(1, [*TRAIN, "--config", str(config)])
    with Group(1, [*TRAIN, "--config", str(config)]) as group:
        while not (killed.checkpoints.is_dir() and any(killed.checkpoints.glob("step_*.pt"))):
            assert group.processes[0].poll() is None, group.output(0)
            time.sleep(0.002)
        group.processes[0].send_signal(signal.SIGKILL)
        group.wait(60)
    assert "resumed from" in run(1, [*TRAIN, "--resume", str(killed.path)])
    assert not {name: fault for name, fault in checkpoint_differences(reference, killed).items() if fault}
    for split in ("train", "val"):
        assert records_difference(reference.metrics, killed.metrics, split) is None
    assert (reference.results / "progress.png").read_bytes() == (killed.results / "progress.png").read_bytes()


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_samples_are_the_same_bytes_for_any_ranks_and_batch_sizes(finished: RunDir, sampler: str) -> None:
    command = [*SAMPLE, "--experiment", str(finished.path), "--num-images", "101", "--sampler", sampler, "--seed", "4"]
    run(1, [*command, "--grid", "evaluation.batch_size=7"])
    alone = sampled(finished)
    assert len(alone) == 102 and "class_3_0093.png" in alone and "grid_seed_4.png" in alone
    for world_size, batch_size in ((2, 1), (3, 64)):
        for path in (finished.results / "samples").glob("*.png"):
            path.unlink()
        run(world_size, [*command, "--grid", f"evaluation.batch_size={batch_size}"])
        assert sampled(finished) == alone
    run(1, [*SAMPLE, "--experiment", str(finished.path), "--num-images", "20", "--sampler", sampler, "--seed", "4"])
    fewer = sampled(finished)
    assert len(fewer) == 20 and all(alone[name] == content for name, content in fewer.items())
    images = load_sampler(finished.path, device="cpu", overrides=[f"diffusion.sampling.sampler={sampler}"])(20, seed=4)
    assert all(
        np.array_equal(image, Image.open(finished.results / "samples" / name))
        for image, name in zip(images, sorted(fewer, key=lambda name: name[-8:]), strict=True)
    )


def test_a_killed_sampling_goes_on_where_it_stopped(finished: RunDir) -> None:
    command = [*SAMPLE, "--experiment", str(finished.path), "--num-images", "400", "--seed", "9", "--steps", "30"]
    folder = finished.results / "samples"
    run(1, command)
    whole = sampled(finished)
    for path in folder.glob("*.png"):
        path.unlink()
    with Group(1, command) as group:
        while len(list(folder.glob("class_*.png"))) < 8:
            assert group.processes[0].poll() is None, group.output(0)
            time.sleep(0.002)
        group.processes[0].send_signal(signal.SIGKILL)
        group.wait(60)
    there = {path: path.stat().st_mtime_ns for path in folder.glob("class_*.png")}
    assert 8 <= len(there) < 400
    assert "blocks of images are there already" in run(2, command)
    assert sampled(finished) == whole
    first = folder / "class_0_0000.png"
    assert first.stat().st_mtime_ns == there[first]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--class-ids", "3,10"], "--class-ids: 10 is no class of .*best.pt; there are 0 to 9"),
        (["--class-ids=-1"], "--class-ids: -1 is no class"),
        (["--sampler", "dpmp"], "diffusion.sampling.sampler: .*did you mean 'dpmpp'"),
        (["--steps", "0"], "diffusion.sampling.steps: must be a whole number >= 1 and <= 100000, not 0"),
        (["--guidance=-1"], "diffusion.sampling.guidance: must be a number >= 0"),
        (["--num-images", "0"], "--num-images: '0'; a whole number, at least 1"),
        (["diffusion.objective=x0"], "diffusion.objective: cannot matter for a trained model"),
        (["diffusion.schedule.name=linear"], "diffusion.schedule.name.*: cannot matter for a trained model"),
        (["data.image_size=16"], "data.image_size: cannot matter for a trained model; what can: evaluation.batch_size"),
        (["data.root=/a", "data.source=images"], "data.source.*: cannot matter .* diffusion.sampling$"),
        (["evaluation.samples=7"], "evaluation.samples: cannot matter"),
        (["--steps", "3", "diffusion.sampling.steps=4"], "--steps 3 and diffusion.sampling.steps=4 say one thing"),
    ],
)
def test_what_contradicts_the_run_is_refused(finished: RunDir, arguments: list[str], said: str) -> None:
    import re

    output = run(1, [*SAMPLE, "--experiment", str(finished.path), *arguments], code=2)
    assert re.search(said, output, re.MULTILINE), output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("data.image_size=16", "data.image_size: 16 contradicts .*best.pt, which was trained with 8"),
        ("data.channels=3", "data.channels: 3 contradicts .*best.pt, which was trained with 1"),
    ],
)
def test_a_size_that_contradicts_the_checkpoint_is_refused_where_images_are_read(
    finished: RunDir, setting: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        load_sampler(finished.path, device="cpu", overrides=[setting])


def test_a_judge_that_was_moved_is_the_runs_own_and_another_one_is_named(
    tmp_path: Path, classifier: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    judge, moved = tmp_path / "judge", tmp_path / "moved"
    shutil.copytree(classifier, judge)
    evaluation = {"samples": 4, "judge": str(judge)}
    run(1, [*TRAIN, "--config", str(write_config(tmp_path, training={"steps": 2}, evaluation=evaluation))])
    folder = RunDir(tmp_path / "experiments" / "experiment_0001")
    judge.rename(moved)
    assert run_evaluation(SPEC, EvaluateArguments(folder.path, "last", "val", ())) == 2
    assert "judge is no experiment folder" in (told := capfd.readouterr().err), told
    assert "if the same files lie elsewhere now, add to this command: evaluation.judge=/THE/NEW/PLACE" in told

    there = f"evaluation.judge={moved}"
    assert run_evaluation(SPEC, EvaluateArguments(folder.path, "last", "val", (there,))) == 0
    assert "changes" not in read_metrics(folder.metrics, "val")[-1]
    before = load_config(DiffusionConfig, folder.config)
    now = load_config(DiffusionConfig, folder.config, [there])
    assert len(allowed_changes(before.model_dump(mode="json"), now, "--resume it")) == 1
    saved, ranks = store.read(folder.checkpoints / "last.pt")["metadata"], Ranks(Layout(), torch.device("cpu"))
    check_same_data(before, now, saved, DiffusionTask(now, ranks).metadata(), "--resume it")

    changed = moved / "checkpoints" / "best.pt"
    content = torch.load(changed, weights_only=True)
    changed.unlink()
    torch.save({**content, "epoch": 7.0}, changed)
    with changed.open("rb") as file:
        store.checksum_file(changed).write_text(store.digest(file))
    with pytest.raises(UserError, match=r"evaluation\.judge=.*moved is not what the run .*: digest_of_judge: "):
        check_same_data(before, now, saved, DiffusionTask(now, ranks).metadata(), "--resume it")
    assert run_evaluation(SPEC, EvaluateArguments(folder.path, "last", "val", (there,))) == 0
    assert read_metrics(folder.metrics, "val")[-1]["changes"] == there


def test_guidance_changes_images_and_1_is_the_network_alone(finished: RunDir) -> None:
    sampler, guided, other = (
        load_sampler(
            finished.path, "last", "cpu", [f"diffusion.sampling.guidance={guidance}", "evaluation.weights=model"]
        )
        for guidance in (1.0, 3.0, 0.0)
    )
    with torch.no_grad():
        for loaded in (sampler, guided, other):
            torch.manual_seed(0)
            model = loaded.inference.model
            torch.nn.init.normal_(model.get_parameter("head.weight"), std=0.1)
            torch.nn.init.normal_(model.get_parameter("modulation.linear.weight"), std=0.1)
    calls = list[int]()
    sampler.inference.model.register_forward_hook(lambda *call: calls.append(1))
    images = sampler(2, [3])
    assert len(calls) == 3  # steps of one block
    assert not np.array_equal(images[0], guided(2, [3])[0])
    assert np.array_equal(other(2, [3])[1], other(2, [8])[1])
    with pytest.raises(UserError, match="class"):
        sampler(1, [11])


def test_evaluation_measures_what_training_did(finished: RunDir) -> None:
    assert run_evaluation(SPEC, EvaluateArguments(finished.path, "last", "val", ())) == 0
    results = finished.results_for("val")
    during = next(r for r in reversed(read_metrics(finished.metrics, "val")) if "source" not in r)
    metrics = json.loads((results / "metrics.json").read_text())
    assert metrics["loss"] == pytest.approx(during["loss"], rel=1e-6) and metrics["about"]["held_out_images"] == 360
    assert metrics["about"]["images"] == 1000 and metrics["frechet_distance"] > 100 and metrics["copies"] == 0
    for name in ("samples.png", "nearest_train.png", "loss_by_time.png"):
        assert (results / name).is_file() and name in (results / "report.md").read_text()
    changes = ("evaluation.weights=second_ema", "evaluation.samples=0")
    assert run_evaluation(SPEC, EvaluateArguments(finished.path, "last", "val", changes)) == 0
    second = json.loads((results / "metrics.json").read_text())
    assert "frechet_distance" not in second
    assert second["loss"] == pytest.approx(during["loss_second_ema"], rel=1e-6)


def test_what_a_network_costs_is_counted(finished: RunDir) -> None:
    cost = json.loads(finished.environment.read_text())["model"]
    assert cost["parameters"] == cost["trainable"] > 0 and cost["flops"] > 2 * cost["parameters"]
