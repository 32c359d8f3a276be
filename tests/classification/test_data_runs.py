"""Whole runs on awkward data: rare classes, images that are missing or broken, a val out of train."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from classification.config import ClassificationConfig
from classification.spec import SPEC
from classification.task import ClassificationTask
from engine.commands.arguments import EvaluateArguments, TrainArguments
from engine.commands.evaluate import run_evaluation
from engine.commands.train import run_training
from engine.config.load import load_config
from engine.data.batch_plan import NaturalOrder
from engine.datasets.dataset import open_images
from engine.datasets.labelled import digests
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.plots.figures import MARGIN, TILE
from engine.process.signals import StopRequest
from engine.run_folder.paths import RunDir
from tests.classification.small import TRAIN, folder_data, write_config, write_images
from tests.classification.test_training import MIXED, in_order, some_steps
from tests.distributed import ROOT, launch, run_ranks

SIZES = {"ant": 30, "bee": 12, "cat": 4, "dog": 2}
SINGLE = Ranks(Layout(), torch.device("cpu"))


@pytest.fixture
def fish(tmp_path) -> Path:
    """A folder of images and fish.csv, which lists them."""
    write_images(tmp_path / "images", SIZES)
    lines = [f"{name}/{k:03d}.jpg,{name}" for name, count in SIZES.items() for k in range(count)]
    (tmp_path / "fish.csv").write_text("\n".join(["file,species", *lines]))
    return tmp_path


def csv_data(folder: Path, **keys) -> dict:
    given = {"source": "csv", "root": str(folder / "images"), "csv": str(folder / "fish.csv")}
    return {**given, "label_columns": ["species"], "val_fraction": 0.25, "image_size": 16, "workers": 0, **keys}


def split_by(folder: Path) -> dict:
    """Has the table say of every fourth image that it is val's."""
    header, *rows = (folder / "fish.csv").read_text().splitlines()
    lines = [f"{row},{'val' if number % 4 == 1 else 'train'}" for number, row in enumerate(rows)]
    (folder / "fish.csv").write_text("\n".join([f"{header},split", *lines]))
    return {"split_column": "split"}


@pytest.mark.parametrize("balance", [{"sampling": "balanced"}, {"oversample": 0.5}])
def test_sampling_is_the_same_on_other_ranks_and_after_a_resume(fish, balance):
    config = str(write_config(fish, **{**MIXED, "data": csv_data(fish, **balance)}))
    whole = some_steps(SINGLE, config, [])
    state = str(fish / "state.pt")
    parts = [run_ranks(2, some_steps, config, [], 7, "", state), [some_steps(SINGLE, config, [], 20, state)]]
    assert torch.equal(torch.cat([in_order(part) for part in parts]), whole["samples"])
    losses = torch.cat([part[0]["losses"] for part in parts])
    torch.testing.assert_close(losses, whole["losses"], rtol=1e-5, atol=0)
    copies = {}
    for step, index, _, pixels in whole["samples"][:, :4].tolist():
        copies.setdefault(index, []).append((step, pixels))
    often = max(copies.values(), key=len)
    assert len(often) > 10 and len({pixels for _, pixels in often}) == len(often), "each copy is augmented anew"


def test_a_run_shows_its_images_and_says_where_its_val_is_from(fish, caplog):
    config = write_config(fish, data=csv_data(fish, resize="pad"), augmentation={"mixup": 0.8, "rotation": 20})
    assert run_training(SPEC, TrainArguments(config, None, False, ()), StopRequest()) == 0
    assert "35 training images of 4 classes (1 to 22 each), 13 images of val, held out of train" in caplog.text
    assert "; classes: ant, bee, cat, dog\n" in caplog.text
    lines = [message for message in caplog.messages if " val: " in message]
    assert lines and all("f1_macro" in line and "micro" not in line for line in lines)
    folder = fish / "experiments" / "experiment_0001"
    sheet = np.asarray(Image.open(folder / "results" / "train_samples.png"))
    board = EventAccumulator(str(RunDir(folder).tensorboard)).Reload()
    (event,) = board.Images("train_samples")
    assert (event.width, event.height) == sheet.shape[1::-1]
    metadata = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["metadata"]
    assert metadata["split"] == {"val_fraction": 0.25, "split_seed": 0}
    assert metadata["classes"] == list(SIZES)
    assert metadata["preprocessing"]["resize"] == "pad"
    assert "`data.val_fraction`" in (folder / "README.md").read_text()


def test_a_single_class_is_warned_of(tmp_path, caplog):
    write_images(tmp_path / "train", {"ant": 4})
    config = write_config(tmp_path, data={**folder_data(tmp_path), "val_fraction": 0.5})
    ClassificationTask(load_config(ClassificationConfig, config), SINGLE)
    assert "data: ant is the only class" in caplog.text


def test_top5_of_five_classes_is_no_measure(tmp_path):
    for count, right in ((5, False), (6, True)):
        root = tmp_path / str(count)
        write_images(root / "train", dict.fromkeys("abcdef"[:count], 4))
        data = {**folder_data(root), "val_fraction": 0.5}
        config = load_config(ClassificationConfig, write_config(root, data=data, evaluation={"metric": "top5"}))
        with nullcontext() if right else pytest.raises(UserError, match=r"top5 is always 1 with 5 classes.*take top1"):
            ClassificationTask(config, SINGLE)


def test_images_that_came_later_are_warned_of(fish, caplog):
    data = {**folder_data(fish / "images"), "val_fraction": 0.25}
    (fish / "images").rename(fish / "train")
    (fish / "images").mkdir()
    (fish / "train").rename(fish / "images" / "train")
    config = write_config(fish, data=data, training={"steps": 2, "global_batch_size": 8})
    assert run_training(SPEC, TrainArguments(config, None, False, ()), StopRequest()) == 0
    folder = fish / "experiments" / "experiment_0001"
    assert run_evaluation(SPEC, EvaluateArguments(folder, "best", "val", [])) == 0
    assert "images, but had" not in caplog.text
    for number in range(8):
        shutil.copy(fish / "images" / "train" / "dog" / "000.jpg", fish / "images" / "train" / "dog" / f"x{number}.jpg")
    assert run_evaluation(SPEC, EvaluateArguments(folder, "best", "val", [])) == 0
    assert "data: train has 41 images, but had 35 in training" in caplog.text
    assert "data: val has 15 images, but had 13 in training" in caplog.text
    assert run_training(SPEC, TrainArguments(None, str(folder), False, ("training.steps=3",)), StopRequest()) == 0
    changed = "the data have changed since the checkpoint: "
    assert f"{changed}images.train: 35 -> 41" in caplog.text and caplog.text.count(changed) == 7
    assert f"{changed}digest_of_image_names.train: " in caplog.text
    assert f"{changed}train_counts: [22, 9, 3, 1] -> [22, 9, 3, 7]" in caplog.text


def test_images_that_took_the_place_of_others_are_warned_of(fish, caplog):
    (fish / "images").rename(fish / "train")
    for split in ("train", "val"):
        shutil.copytree(fish / "train", fish / "images" / split)
    data = folder_data(fish / "images")
    config = write_config(fish, data=data, training={"steps": 2, "global_batch_size": 8})
    assert run_training(SPEC, TrainArguments(config, None, False, ()), StopRequest()) == 0
    folder = fish / "experiments" / "experiment_0001"
    dogs = fish / "images" / "val" / "dog"
    sorted(dogs.iterdir())[0].rename(dogs / "other.jpg")
    assert run_evaluation(SPEC, EvaluateArguments(folder, "best", "val", [])) == 0
    assert "data: val has as many images as in training, but of other names" in caplog.text
    assert run_training(SPEC, TrainArguments(None, str(folder), False, ("training.steps=3",)), StopRequest()) == 0
    changed = "the data have changed since the checkpoint: "
    assert f"{changed}digest_of_image_names.val: " in caplog.text and caplog.text.count(changed) == 2


def test_a_run_does_not_go_on_with_other_classes(fish, capsys):
    (fish / "images").rename(fish / "train")
    for split in ("train", "val"):
        shutil.copytree(fish / "train", fish / "images" / split)
    config = write_config(fish, data=folder_data(fish / "images"), training={"steps": 2, "global_batch_size": 8})
    assert run_training(SPEC, TrainArguments(config, None, False, ()), StopRequest()) == 0
    again = TrainArguments(None, str(fish / "experiments" / "experiment_0001"), False, ("training.steps=3",))
    before = sorted(path.name for path in (fish / "images" / "train").iterdir())
    for split in ("train", "val"):
        (fish / "images" / split / before[0]).rename(fish / "images" / split / "zebra")
    assert run_training(SPEC, again, StopRequest()) == 2
    error = capsys.readouterr().err
    assert "the classes of the data have changed since the checkpoint: " in error and "zebra" in error
    for split in ("train", "val"):
        shutil.copytree(fish / "images" / split / "zebra", fish / "images" / split / before[0])
    assert run_training(SPEC, again, StopRequest()) == 2
    assert "put them back, or start a new run from its weights (finetune.weights)" in capsys.readouterr().err


def test_the_order_of_images_is_no_change(fish):
    images = open_images(load_config(ClassificationConfig, write_config(fish, data=csv_data(fish))).data, "train")
    order = np.random.default_rng(0).permutation(len(images))
    assert digests(images.subset(order))[0] == digests(images)[0] != digests(images.subset(order[1:]))[0]
    assert digests(images.subset(order))[1] != digests(images)[1], "another order is another training"


def test_the_sheet_shows_what_the_model_sees(fish):
    """Across steps whose batches are smaller than the sheet, each with its own mixing."""
    sections = {"data": csv_data(fish), "augmentation": {"mixup": 0.8}, "training": {"global_batch_size": 4}}
    task = ClassificationTask(load_config(ClassificationConfig, write_config(fish, **sections)), SINGLE)
    seen = []
    task._mixed = lambda images, batch, mixed=task._mixed: seen.append(mixed(images, batch)) or seen[-1]
    sheet = task.previews()["train_samples"]
    assert len(seen) == 8 and sum(len(targets) for _, targets in seen) == 32
    assert len({tuple(targets.max(1).values.tolist()) for _, targets in seen}) > 4
    first = seen[0][0][0].round().byte().permute(1, 2, 0).numpy()
    one = slice(MARGIN, MARGIN + TILE, TILE // 16)  # 16 pixels a side, enlarged
    assert (sheet[one, one] == first).all()


def test_a_broken_image_on_the_sheet_ends_all_ranks(fish):
    """Rank 0 draws the sheet alone; the other one is in its first step then."""
    path = write_config(fish, data=csv_data(fish))
    data = load_config(ClassificationConfig, path).data
    train = open_images(data, "train")
    broken = train.path(NaturalOrder(len(train), 0)(0)[31])  # of the second step
    broken.write_bytes(broken.read_bytes()[:-100])  # its header is whole
    ended = launch(2, [*TRAIN, "--config", str(path)], cwd=fish)
    assert [end.returncode for end in ended] == [2, 2]
    assert f"{broken}: cannot be read as an image" in ended[0].output and "Traceback" not in ended[0].output


def test_the_recipe_for_1758_species_trains_its_head_and_then_everything(fish, caplog):
    """The shipped one, on a few small images and with a model to match."""
    recipe = ROOT / "configs" / "classification" / "fish_species.yaml"
    config = load_config(ClassificationConfig, recipe)
    assert (config.data.resize, config.augmentation.random_resized_crop, config.loss.name) == ("pad", None, "focal")
    assert config.finetune.unfreeze == {0: ["head"], 30: ["all"]} and config.training.epochs == 30 + 50
    changes = [
        f"data.root={fish / 'images'}", f"data.csv={fish / 'fish.csv'}", "data.image_size=32", "data.workers=0",
        "model={name: timm/test_convnext}", "finetune.weights=null", "finetune.unfreeze={0: head, 1: all}",
        "training.epochs=2", "training.global_batch_size=16", "distributed.device=cpu",
        f"experiment.root={fish / 'experiments'}",
    ]  # fmt: skip
    assert run_training(SPEC, TrainArguments(recipe, None, False, changes), StopRequest()) == 0
    assert "training head: " in caplog.text and "f1_macro" in caplog.text
    assert (fish / "experiments" / "experiment_0001" / "results" / "train_samples.png").is_file()


def experiment_of(root: Path, data: dict) -> Path:
    """The folder of a run of two steps on ``data``, recorded below ``root``."""
    config = write_config(root, data=data, training={"steps": 2, "global_batch_size": 8})
    assert run_training(SPEC, TrainArguments(config, None, False, ()), StopRequest()) == 0
    return root / "experiments" / "experiment_0001"


def go_on(folder: Path, *settings: str) -> int:
    return run_training(SPEC, TrainArguments(None, str(folder), False, settings), StopRequest())


@pytest.mark.parametrize("absolute", [False, True], ids=["relative", "absolute"])
def test_a_run_goes_on_where_its_data_were_moved_to(fish, capsys, absolute):
    if absolute:
        rows = (fish / "fish.csv").read_text().replace("\n", f"\n{fish / 'images'}/")
        (fish / "fish.csv").write_text(rows)
    folder, moved = experiment_of(fish, csv_data(fish, val_fraction=None) | split_by(fish)), fish / "moved"
    moved.mkdir()
    (fish / "images").rename(moved / "images")
    table = (fish / "fish.csv").read_text().replace(f"{fish / 'images'}", f"{moved / 'images'}")
    (fish / "fish.csv").unlink()
    (moved / "fish.csv").write_text(table)
    assert go_on(folder, "training.steps=4") == 2
    assert "add to this command: data.root=/THE/NEW/PLACE data.csv=/THE/NEW/PLACE" in capsys.readouterr().err
    assert run_evaluation(SPEC, EvaluateArguments(folder, "last", "val", [])) == 2
    assert "add to this command: data.root=/THE/NEW/PLACE data.csv=/THE/NEW/PLACE" in capsys.readouterr().err
    places = [f"data.root={moved / 'images'}", f"data.csv={moved / 'fish.csv'}"]
    assert run_evaluation(SPEC, EvaluateArguments(folder, "last", "val", places)) == 0
    assert str(moved) not in (folder / "results" / "val" / "report.md").read_text() or absolute
    assert go_on(folder, *places) == 0 and "has finished; ask for more" in capsys.readouterr().out
    assert go_on(folder, "training.steps=4", *places) == 0
    (restart,) = json.loads((folder / "environment.json").read_text())["restarts"]
    assert f"data.root: '{fish / 'images'}' -> '{moved / 'images'}'" in restart["changed_settings"]
    assert go_on(folder, "training.steps=5") == 0, "and knows the place from then on"


@pytest.mark.parametrize("change", ["gone", "other content", "other label"])
def test_a_run_does_not_go_on_with_other_data_elsewhere(fish, capsys, change):
    folder = experiment_of(fish, csv_data(fish))
    shutil.copytree(fish / "images", fish / "other")
    table, image = (fish / "fish.csv").read_text(), fish / "other" / "ant" / "003.jpg"
    if change == "gone":
        image.unlink()
        table = table.replace("ant/003.jpg,ant\n", "")
    elif change == "other content":
        Image.new("RGB", (20, 20)).save(image)
    else:
        table = table.replace("ant/003.jpg,ant", "ant/003.jpg,bee").replace("bee/000.jpg,bee", "bee/000.jpg,ant")
    (fish / "other.csv").write_text(table)
    places = [f"data.root={fish / 'other'}", f"data.csv={fish / 'other.csv'}"]
    assert go_on(folder, "training.steps=4", *places) == 2
    error = capsys.readouterr().err
    assert f"what lies at data.root={fish / 'other'}, data.csv=" in error
    assert "is not what the run was trained on: " in error and (change == "gone" or "digest_of_images." in error)
