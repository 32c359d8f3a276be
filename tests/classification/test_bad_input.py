"""Wrong input: one clear message, exit code 2, no traceback, nothing left behind."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from classification.spec import SPEC
from engine.commands.arguments import TrainArguments
from engine.commands.entry import exit_code
from engine.commands.train import run_training
from engine.process.signals import StopRequest
from tests.classification.small import EVALUATE, TRAIN, folder_data, write_config, write_images
from tests.distributed import launch


def refused(config: Path | None, *overrides: str, resume: str | None = None) -> str:
    """The message that a start with this input ends with."""
    arguments = TrainArguments(config, resume, False, overrides)
    folder = config.parent if config is not None else Path(resume or "")
    before = sorted(folder.rglob("*"))
    error = io.StringIO()
    with contextlib.redirect_stderr(error):
        code = exit_code(lambda: run_training(SPEC, arguments, StopRequest()))
    message = error.getvalue()
    assert code == 2, message
    assert "Traceback" not in message
    assert sorted(folder.rglob("*")) == before, "something was left behind"
    return message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optimizer.leraning_rate=1", "command line: optimizer.leraning_rate"),
        ("training.ema.decai=0.9", "did you mean 'decay'"),
        ("trainig.epochs=3", "did you mean 'training'"),
        ("training.steps=-3", "training.steps"),
        ("training.steps=many", "training.steps"),
        ("optimizer.lr=.nan", "optimizer.lr"),
        ("optimizer.lr=0", "optimizer.lr"),
        ("optimizer.name=adamww", "did you mean 'adamw'"),
        ("schedule.min_lr=1.0", "schedule.min_lr"),
        ("data.image_size=-1", "data.image_size"),
        ("data.crop_pct=1e-9", "data.crop_pct: must be a number >= 0.1"),
        ("data.workers=1000000", "data.workers: must be a whole number"),
        ("model.name=swin_tinny", "did you mean 'swin_tiny'"),
        ("model.num_heads=[5,5]", "heads"),
        ("training.global_batch_size=5000", "at most 1437"),
        ("training.accumulation=3", "15 or 18"),
        ("augmentation.mixup=-1", "augmentation.mixup"),
        (
            "finetune.unfreeze={0: head, 3: layer4}",
            "no stage 'layer4'; there are stem, stage_1, stage_2, head, and 'all'",
        ),
        ("finetune.unfreeze={3: all}", "must say what is trained from epoch 0 on, such as {0: head, 5: all}"),
        ("finetune.unfreeze={0: head, soon: all}", "finetune.unfreeze.soon"),
        ("model.max_parameters=100", "model.max_parameters: swin has "),
        ("model.head={dropout: 0.5}", "model.head.hidden"),
        ("evaluation.mode=min", "evaluation.mode: min is wrong for 'top1', of which more is better; remove it"),
        ("finetune.weights=.", "is a folder, but no experiment with a checkpoint"),
    ],
)
def test_values_on_the_command_line(tmp_path, override, expected):
    assert expected in refused(write_config(tmp_path), override)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([*TRAIN, "--config", "run.yaml", "optimizer.leraning_rate=1"], "optimizer.leraning_rate: unknown key"),
        (
            [*TRAIN, "--config", "run.yaml", "data.workers=-1"],
            "must be a whole number >= 0 and <= 256 or 'auto', not -1",
        ),
        ([*TRAIN, "--config", "run.yaml", "model.name=swin_tinny"], "did you mean 'swin_tiny'?"),
        ([*TRAIN, "--config", "run.yaml", "model={name: timm/resnet18}", "training.epoch=1"], "did you mean 'epochs'?"),
        ([*TRAIN, "--config", "rum.yaml"], "rum.yaml: cannot be read"),
        ([*TRAIN, "--resume", "experiments/experiment_0009"], "is no experiment folder"),
        ([*EVALUATE, "--experiment", "experiments/experiment_0009"], "is no experiment folder"),
        ([*EVALUATE, "--experiment", "old", "data.image_size=0"], "data.image_size: must be a whole number >= 1 and"),
        ([*EVALUATE, "--experiment", "old", "optimizer.lr=1"], "optimizer.lr: cannot matter for a trained model; what"),
    ],
)
def test_mistakes_are_told_before_torch_is_imported(tmp_path, command, message):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.yaml").write_text(write_config(tmp_path).read_text())
    command = [sys.executable, "-X", "importtime", *command[1:]]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if line.startswith("import time")}
    said = [line for line in ended.stderr.splitlines() if not line.startswith("import time")]
    assert ended.returncode == 2 and len(said) == 1 and message in said[0], said
    assert "pydantic" in imported and not imported & {"torch", "timm", "torchvision"}


def test_rank_0_speaks_for_all(tmp_path):
    ended = launch(2, [*TRAIN, "--config", str(write_config(tmp_path)), "trainig.epochs=3"], cwd=tmp_path)
    assert [end.returncode for end in ended] == [2, 2]
    assert ended[0].output.count("did you mean 'training'") == 1 and "error" not in ended[1].output


def test_a_key_in_a_file_is_found_by_file_and_line(tmp_path):
    config = write_config(tmp_path)
    lines = [*config.read_text().splitlines(), "optimizer:", "  lrr: 1"]
    config.write_text("\n".join(lines))
    assert f"{config}:{len(lines)}: optimizer.lrr" in refused(config)


def test_a_base_that_includes_itself(tmp_path):
    config = write_config(tmp_path)
    config.write_text(f"base: {config.name}\n{config.read_text()}")
    assert "run.yaml" in refused(config)


def test_a_batch_that_the_ranks_cannot_share(tmp_path):
    config = write_config(tmp_path, training={"global_batch_size": 15})
    ended = launch(2, [*TRAIN, "--config", str(config)], cwd=tmp_path)
    assert [end.returncode for end in ended] == [2, 2]
    assert "15 cannot be divided into 2 ranks; the nearest that can: 14 or 16" in ended[0].output
    assert "error" not in ended[1].output  # rank 0 speaks for all
    assert not (tmp_path / "experiments").exists()


def test_folders_that_are_missing_empty_or_different(tmp_path):
    write_images(tmp_path / "images" / "train", {"cat": 20, "dog": 20})
    config = write_config(tmp_path, data=folder_data(tmp_path / "images"))
    assert "val" in refused(config)
    write_images(tmp_path / "images" / "val", {"cat": 2, "dgo": 2})
    message = refused(config)
    assert "dog" in message and "dgo" in message
    (tmp_path / "images" / "val" / "dgo").rename(tmp_path / "images" / "val" / "dog")
    (tmp_path / "images" / "train" / "emu").mkdir()
    assert "emu" in refused(config)
    assert "did you mean" in refused(config, f"data.root={tmp_path / 'imges'}")


def test_a_broken_image_is_named(tmp_path):
    write_images(tmp_path / "images" / "train", {"cat": 20, "dog": 20})
    write_images(tmp_path / "images" / "val", {"cat": 2, "dog": 2})
    broken = tmp_path / "images" / "train" / "dog" / "007.jpg"
    broken.write_bytes(broken.read_bytes()[:-100])  # its header is whole
    config = write_config(tmp_path, data={**folder_data(tmp_path / "images"), "workers": 2}, training={"steps": 9})
    ended = launch(1, [*TRAIN, "--config", str(config)], cwd=tmp_path)
    assert ended[0].returncode == 2
    assert str(broken) in ended[0].output and "Traceback" not in ended[0].output


def test_held_out_files_that_are_no_images_are_named_before_training(tmp_path):
    write_images(tmp_path / "images" / "train", {"cat": 20, "dog": 20})
    write_images(tmp_path / "images" / "val", {"cat": 2, "dog": 2})
    broken = tmp_path / "images" / "val" / "dog" / "001.jpg"
    broken.write_text("<html>not found</html>")
    config = write_config(tmp_path, data=folder_data(tmp_path / "images"))
    assert f"{broken}: cannot be read as an image" in refused(config)


FISH = "file,species,split\n" + "".join(
    f"{name}/{k:03d}.jpg,{name},{'val' if k > 17 else 'train'}\n" for name in ("cod", "hake") for k in range(20)
)


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        (None, [], "data.csv: {folder}/fish.csv does not exist"),
        (FISH, ["data.label_columns=[specie]"], "has no column 'specie' (it has: file, species, split); did you mean"),
        (FISH, ["data.label_column=[specie]"], "data.label_column: unknown key; did you mean 'label_columns'"),
        (FISH, ["data.split_column=null"], "no row is for val; name a data.split_column"),
        ("", [], "fish.csv is empty"),
        (FISH.replace("hake,val", "heak,val"), [], "unknown class 'heak' (val; 2 rows in all); did you mean 'hake'?"),
        (FISH, ["data.classes=[cod, hake, eel]"], "1 of 3 classes have no training images: eel"),
        (FISH.replace("hake,train", "nan,train"), [], "fish.csv:22: species: must be the name of a class, not 'nan'"),
        (FISH + "cod/000.jpg,hake,train\n", [], "fish.csv:42: cod/000.jpg has species 'hake' here and 'cod' in"),
        (FISH.replace("cod/", "kod/"), [], "2 of 4 images that are listed are not there"),
    ],
)
def test_a_csv_file_that_is_wrong(tmp_path, text, overrides, expected):
    write_images(tmp_path / "images", {"cod": 20, "hake": 20})
    table = tmp_path / "fish.csv"
    if text is not None:
        table.write_text(text)
    data = {**folder_data(tmp_path / "images"), "source": "csv", "csv": str(table)}
    config = write_config(tmp_path, data={**data, "label_columns": ["species"], "split_column": "split"})
    message = refused(config, *overrides)
    assert expected.format(folder=tmp_path) in message


def test_weights_that_do_not_fit(tmp_path):
    config = write_config(tmp_path)
    assert "no file" in refused(config, f"finetune.weights={tmp_path / 'none.pth'}")
    save_file({"layers.0.wrong": torch.zeros(3)}, tmp_path / "w.safetensors")
    message = refused(config, f"finetune.weights={tmp_path / 'w.safetensors'}")
    assert "layers.0.wrong" in message and "w.safetensors" in message


def test_a_tail_of_one_sample_with_batch_norm(tmp_path):
    config = write_config(
        tmp_path,
        model={"name": "timm/resnet18"},
        data={"source": "digits", "image_size": 16, "workers": 0, "drop_last": False},
        training={"global_batch_size": 359},  # 1,437 = 4 * 359 + 1
    )
    message = refused(config)
    assert "drop_last=true" in message and "batch norm" in message


def test_resuming_what_is_not_there_or_would_change(tmp_path):
    config = write_config(tmp_path)
    assert "no experiment folder" in refused(config, resume=str(tmp_path / "experiments" / "experiment_0009"))
    assert run_training(SPEC, TrainArguments(config, None, False, []), StopRequest()) == 0
    folder = tmp_path / "experiments" / "experiment_0001"
    message = refused(config, "optimizer.weight_decay=0.3", "data.workers=1", resume=str(folder))
    assert "optimizer.weight_decay: 0.05 -> 0.3" in message and "data.workers" not in message
    before = (folder / "status.json").read_text()
    assert run_training(SPEC, TrainArguments(None, str(folder), False, []), StopRequest()) == 0
    assert (folder / "status.json").read_text() == before  # it has finished, and nothing more was asked for
    for checkpoint in (folder / "checkpoints").glob("*.pt"):
        checkpoint.write_bytes(checkpoint.read_bytes()[:-9])
    records = (folder / "metrics.jsonl").read_text()
    assert "none of the checkpoints" in refused(None, "training.steps=8", resume=str(folder))
    assert (folder / "metrics.jsonl").read_text() == records
    for checkpoint in (folder / "checkpoints").glob("*"):
        checkpoint.unlink()
    longer = TrainArguments(None, str(folder), False, ["training.steps=8"])
    assert run_training(SPEC, longer, StopRequest()) == 0
    assert '"step": 8' in (folder / "status.json").read_text()
    assert "training.steps: 6 -> 8" in (folder / "environment.json").read_text()
