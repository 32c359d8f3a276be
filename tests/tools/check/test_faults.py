"""Planted faults, each of which a check finds, names and judges."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from classification.config import ClassificationConfig
from engine.config.load import load_config
from tests.classification.small import write_config
from tools.check import __main__ as command
from tools.check import measure
from tools.check.__main__ import main
from tools.pack import main as pack

SIDE = 96


@dataclass
class Project:
    """A run of which nothing is wrong: class folders of pictures, a tiny Swin, and the command that checks it."""

    folder: Path
    changes: dict[str, dict[str, Any]]
    options: list[str]

    @property
    def data(self) -> Path:
        return self.folder / "shop"

    def command(self) -> list[str]:
        data = {"source": "folder", "root": str(self.data), "image_size": 16, "workers": 0}
        changes = {"data": data, "training": {"steps": 3, "global_batch_size": 4}, **self.changes}
        config = write_config(self.folder, **changes)
        return ["--task", "classification", "--config", str(config), "--no-login-node", *self.options]


def picture(seed: int) -> Image.Image:
    """Something to see: shades of light that no other seed has."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    seed = 0
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        for kind in ("ant", "bee"):
            (tmp_path / "shop" / split / kind).mkdir(parents=True)
            for number in range(count):
                seed += 1
                picture(seed).save(tmp_path / "shop" / split / kind / f"{number}.png")
    monkeypatch.setattr(measure, "STEP_SECONDS", 0.1)
    monkeypatch.setattr(measure, "LOADER_SECONDS", 0.1)

    def here(config: ClassificationConfig, request: measure.Request) -> dict[str, Any]:
        """Rehearses in this process, which is quicker."""
        file = tmp_path / "resolved.yaml"
        file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
        assert load_config(ClassificationConfig, file) == config
        return measure.rehearse(measure.Request(**{**vars(request), "config": str(file)}))

    monkeypatch.setattr(command, "rehearse_apart", here)
    return Project(tmp_path, {}, [])


def said(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    found = capsys.readouterr()
    return found.out, found.err


def test_nothing_is_found_where_nothing_is_wrong(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    file = project.folder / "check.json"
    assert main([*project.command(), "--json", str(file), "--time", "1:00:00"]) == 0
    out, err = said(capsys)
    warnings = [line for line in out.splitlines() if line.startswith("warning") and "data-bound" not in line]
    assert not err and not warnings and "verdict: nothing found that would stop the run" in out, out
    for line in (
        "data: test by class: ant 3, bee 3",
        "data: decoded: 12 of 12 images of train, 6 of 6 images of val, 6 of 6 images of test",
        "device: CPU",
        "model: batch: 4 x 1 accumulated on a device, 4 in all; 3 steps an epoch, 3 in all",
        "disk: checkpoints of up to",
        "at a micro-batch of 4: steps, an evaluation and a checkpoint",
        "images/s on a device; the loader alone",
        "of 1 h 0 min that are asked for",
    ):
        assert line in out
    figures = json.loads(file.read_text())
    assert figures["verdict"] == "fine" and figures["errors"] == figures["not_checked"] == []
    assert figures["data"]["train"] == {"ant": 6, "bee": 6} and figures["memory_bytes"] > 1e7
    assert figures["steps"] == {"total": 3, "per_epoch": 3, "evaluations": 1} and figures["evaluation_whole"]
    seconds = figures["seconds"]
    assert seconds["epoch"] > 0 and 0 < seconds["evaluation"] < seconds["total"]
    assert set(figures["images_per_second"]) == {"together", "loader", "model"}


def misspelt_key(project: Project) -> None:
    project.options.append("optimizer.lrr=1")


def unknown_metric(project: Project) -> None:
    project.options.append("evaluation.metric=AP")


def no_data(project: Project) -> None:
    shutil.rmtree(project.data / "val")


def no_image(project: Project) -> None:
    (project.data / "train" / "ant" / "0.png").write_text("no image")


def damaged_image(project: Project) -> None:
    file = project.data / "train" / "ant" / "0.png"
    file.write_bytes(file.read_bytes()[:-400])


def damaged_image_of_test(project: Project) -> None:
    file = project.data / "test" / "ant" / "0.png"
    file.write_bytes(file.read_bytes()[:-400])


def class_of_val_alone(project: Project) -> None:
    (project.data / "val" / "bee").rename(project.data / "val" / "wasp")


def copies_in_test(project: Project) -> None:
    shutil.copy(project.data / "train" / "bee" / "4.png", project.data / "test" / "bee" / "again.png")


def same_pictures(project: Project) -> None:
    picture(3).resize((64, 64)).save(project.data / "val" / "ant" / "smaller.jpg", quality=80)


def no_weights(project: Project) -> None:
    project.options.append("finetune.weights=gone.pt")


def other_weights(project: Project) -> None:
    file = project.folder / "other.pt"
    torch.save({"stem.weight": torch.zeros(3), "stem.bias": torch.zeros(3)}, file)
    project.options.append(f"finetune.weights={file}")


def no_gpu(project: Project) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    project.options.append("distributed.device=cuda")


def no_place(project: Project) -> None:
    project.options.append("experiment.root=/proc/runs")


def large_checkpoints(project: Project) -> None:
    project.options.append("checkpoint.keep=1000000000")


def batch_for_two_on_three(project: Project) -> None:
    project.options += ["--gpus-per-node", "0", "--tasks-per-node", "3"]


def large_batch(project: Project) -> None:
    project.options += ["training.global_batch_size=13"]


def little_memory(project: Project) -> None:
    project.options += ["--mem", "50M"]


def little_time(project: Project) -> None:
    project.options += ["--time", "10:00", "training.steps=100000000"]


def slow_files(project: Project) -> None:
    for file in project.data.glob("train/*/*.png"):
        Image.open(file).resize((1500, 1500)).save(file)


def clipped_magnitude(project: Project) -> None:
    project.options.append("augmentation.randaugment=rand-m15")


def infinite_loss(project: Project) -> None:
    project.options += ["optimizer.lr=1e30", "schedule.warmup_epochs=0", "training.steps=50"]
    project.options += ["training.max_nonfinite_steps=2"]


ERRORS: list[tuple[Callable[[Project], None], str]] = [
    (misspelt_key, "optimizer.lrr: unknown key; did you mean 'lr'"),
    (unknown_metric, "evaluation.metric: 'AP' is not measured; there are loss, top1"),
    (no_data, "data.root: "),
    (no_image, "train/ant/0.png: cannot be read as an image"),
    (damaged_image, "train/ant/0.png: cannot be read as an image"),
    (class_of_val_alone, "wasp"),
    (no_weights, "finetune.weights: no file "),
    (other_weights, "other.pt"),
    (no_gpu, "distributed.device: cuda is asked for, but torch sees no GPU"),
    (no_place, "experiment.root: /proc cannot be written"),
    (large_checkpoints, "free, but checkpoints need"),
    (batch_for_two_on_three, "training.global_batch_size: 4 cannot be divided into 3 ranks"),
    (large_batch, "training.global_batch_size: 13 is more than the 12 training samples"),
    (little_memory, "are needed, and there are 52 MB; lower training.micro_batch_size"),
    (infinite_loss, "steps in a row, up to step 3, had a loss or gradient that is not finite"),
]
WARNINGS: list[tuple[Callable[[Project], None], str]] = [
    (copies_in_test, "data: 1 of 7 images of test are in train as well, with the same content"),
    (same_pictures, "images of val look like ones of train, and may be the same pictures, saved again"),
    (damaged_image_of_test, "test/ant/0.png: cannot be read as an image"),
    (little_time, "time: the run takes"),
    (slow_files, "speed: data-bound: "),
]


@pytest.mark.parametrize(("plant", "message"), ERRORS, ids=[plant.__name__ for plant, _ in ERRORS])
def test_a_fault_that_ends_a_run_is_an_error(
    project: Project, plant: Callable[[Project], None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(project)
    assert main(project.command()) == 2
    out, err = said(capsys)
    assert message in err, out + err
    assert (
        out == ""
        or out.endswith("verdict: training would refuse to start, or end before its time\n")
        or "verdict" not in out
    )


@pytest.mark.parametrize(("plant", "message"), WARNINGS, ids=[plant.__name__ for plant, _ in WARNINGS])
def test_a_fault_that_a_run_can_do_with_is_a_warning(
    project: Project, plant: Callable[[Project], None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(project)
    assert main(project.command()) == 0
    out, err = said(capsys)
    assert not err and any(line.startswith("warning: ") and message in line for line in out.splitlines()), out + err
    assert ("look like ones of" in out) == (plant is same_pictures), "a file of the same content is told of once"


@pytest.mark.parametrize("plant", [no_image, damaged_image])
def test_images_that_training_skips_are_no_errors(
    project: Project, plant: Callable[[Project], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether it is the header that is wrong, or what is behind it."""
    plant(project)
    project.options.append("data.max_unreadable=1")
    assert main(project.command()) == 0
    out, err = said(capsys)
    assert not err and "warning: " in out and "train/ant/0.png: cannot be read as an image" in out
    (project.data / "train" / "bee" / "0.png").write_text("no image")
    assert main(project.command()) == 2
    assert "train/bee/0.png: cannot be read as an image" in said(capsys)[1]


@pytest.mark.parametrize("options", [[], ["--quick"]])
def test_what_is_seldom_meant_is_told_once(
    project: Project, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    clipped_magnitude(project)
    project.options += options
    assert main(project.command()) == 0
    assert said(capsys)[0].count("timm clips m15 to 10") == 1


def test_what_is_found_in_folders_is_found_in_shards(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    for plant in (damaged_image, copies_in_test, same_pictures, damaged_image_of_test):
        plant(project)
    shutil.copy(project.data / "train" / "bee" / "4.png", project.data / "train" / "ant" / "also.png")
    packed = project.folder / "packed"
    assert pack([*project.command()[:4], "--output", str(packed), "--workers", "1", "data.max_unreadable=1"]) == 0
    project.changes = {"data": {"source": "shards", "root": str(packed), "image_size": 16, "workers": 0}}
    assert main(project.command()) == 2
    out, err = said(capsys)
    assert f"{packed}/train-000000.tar:ant/0.png: cannot be read as an image" in err
    train = f"{packed}/train-000000.tar"
    for message in (
        f"1 of 7 images of test are in train as well, with the same content; the first: {packed}/test-000000.tar:",
        f"1 training images are in several classes, with the same content; the first: {train}:ant/also.png and {train}",
        "images of val look like ones of train, and may be the same pictures, saved again",
        f"{packed}/test-000000.tar:ant/0.png: cannot be read as an image",
    ):
        assert message in out, out
    assert "at least" not in out


def test_what_programs_read_says_so_too_where_the_configuration_is_wrong(project: Project) -> None:
    file = project.folder / "check.json"
    project.options += ["--json", str(file), "optimizer.lrr=1"]
    assert main(project.command()) == 2
    figures = json.loads(file.read_text())
    assert figures["verdict"] == "refused" and "optimizer.lrr: unknown key" in figures["errors"][0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mem", "64 apples"], "--mem: '64 apples' is no memory"),
        (["--json", "/proc/check.json"], "--json: /proc cannot be written"),
        (["--json", "no/check.json"], "--json no/check.json: there is no folder no"),
        (["--quick", "--find-batch"], "--find-batch: makes steps, and --quick makes none"),
    ],
)
def test_wrong_options_are_told_before_anything_is_measured(
    project: Project, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project.options += options
    assert main(project.command()) == 2
    out, err = said(capsys)
    assert message in err and not out


def test_a_lack_of_memory_on_a_cpu_names_the_settings_that_ask_for_it(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 20 bytes")

    monkeypatch.setattr(measure, "_measure", full)
    assert main(project.command()) == 2
    assert "error: there is not enough memory for data.image_size=16" in said(capsys)[1]


def test_on_a_login_node_all_is_built_and_what_was_not_checked_is_said(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.options += ["--login-node", "distributed.device=cuda", "training.precision=bf16"]
    assert main(project.command()) == 0
    out, err = said(capsys)
    assert "disk: checkpoints of up to" in out and not err
    assert "not checked: memory, time: this is a login node" in out
    assert "memory: " not in out.replace("not checked: memory", "") and "things not checked" in out
    project.options.append("--find-batch")
    assert main(project.command()) == 0
    assert "not checked: memory, time, largest micro-batch: this is a login node" in said(capsys)[0]
    project.options.append("training.global_batch_size=3000")
    assert main(project.command()) == 2


def test_the_largest_micro_batch_is_found(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.options.append("--find-batch")
    assert main(project.command()) == 0
    out = said(capsys)[0]
    assert "memory: largest micro-batch that fits: 12 (" in out, "there are 12 images"
    assert "; of a global batch a device has 4\n" in out


def test_a_run_that_does_not_fit_the_gpu_says_so(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")

    monkeypatch.setattr(measure, "_measure", full)
    assert main(project.command()) == 2
    error = said(capsys)[1]
    assert "memory: a micro-batch of 4 does not fit: CUDA out of memory. Tried to allocate 20.00 GiB.; lower" in error


def test_an_evaluation_that_is_too_long_is_told_by_its_part(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "EVALUATION_SECONDS", 0.0)
    project.options += ["evaluation.batch_size=1", "--json", str(project.folder / "check.json")]
    assert main(project.command()) == 0
    figures = json.loads((project.folder / "check.json").read_text())
    assert not figures["evaluation_whole"] and figures["evaluation_seconds"] > 0
