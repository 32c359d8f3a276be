"""What evaluations measure: losses by time, and samples beside real images in the features of a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.data.open import open_split
from diffusion.metrics.measure import Samples
from diffusion.metrics.names import BIN_NAMES
from diffusion.preflight import check_inputs, look, metrics_of
from diffusion.task import DiffusionTask
from diffusion.validation import HeldOutLosses, compare, open_space, validation_reader
from engine.data.batch_plan import Draw
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from tests.diffusion.small import config_of
from tests.distributed import run_ranks

ALONE = Ranks(Layout(), torch.device("cpu"))
DIGITS = [str(digit) for digit in range(10)]


def test_bins_divide_the_times() -> None:
    held_out = HeldOutLosses(torch.tensor([0.0, 0.1, 0.3, 0.9]), torch.tensor([1.0, 3.0, 5.0, 7.0]))
    found = held_out.metrics()
    assert found["loss"] == 4.0
    assert [found[name] for name in BIN_NAMES] == pytest.approx([2.0, 5.0, float("nan"), 7.0], nan_ok=True)
    assert held_out.by_time(10)[[0, 1, 3, 9]].tolist() == [1.0, 3.0, 5.0, 7.0]


def evaluated(ranks: Ranks, judge: str | None, reference: str = "split") -> dict[str, float]:
    torch.manual_seed(0)
    config = config_of(evaluation={"samples": 30, "judge": judge, "reference": reference})
    task = DiffusionTask(config, ranks)
    torch.nn.init.normal_(task.model.get_parameter("head.weight"), std=0.1)
    with torch.inference_mode():
        metrics = task.evaluate(task.model.eval(), "val", ranks).metrics
    assert set(metrics) == set(metrics_of(config).directions) == set(task.metrics.directions)
    return metrics


def test_evaluations_of_a_run_measure_samples_on_any_number_of_ranks(classifier: Path) -> None:
    alone = evaluated(ALONE, str(classifier))
    assert 0 <= alone["class_accuracy"] < 0.5 and alone["frechet_distance"] > 0
    for theirs in run_ranks(2, evaluated, str(classifier)):
        assert theirs == pytest.approx(alone, rel=1e-6, abs=1e-9)
    pixels = evaluated(ALONE, None)
    assert "class_accuracy" not in pixels and pixels["frechet_distance"] != alone["frechet_distance"]
    assert evaluated(ALONE, None, "train")["frechet_distance"] != pixels["frechet_distance"]


def test_held_out_images_as_samples_are_judged_as_the_reference_is(classifier: Path) -> None:
    config = config_of(evaluation={"judge": str(classifier)})
    images = open_split(config.data, "val")
    reader = validation_reader(images, config)
    pixels = torch.stack([reader[Draw(index, 0, index)]["image"] for index in range(len(images))])
    samples = Samples(len(images), torch.arange(len(images)), pixels, torch.from_numpy(images.labels))
    space = open_space(config, DIGITS, ALONE)
    found = compare(samples, "val", images, config, space, ALONE, open_split(config.data, "train"))
    assert found.metrics["class_accuracy"] == found.about["class_accuracy_of_reference"]
    assert found.metrics["frechet_distance"] == pytest.approx(0, abs=1e-6) and found.metrics["precision"] == 1
    assert found.metrics["nearest_train"] == found.about["nearest_train_of_reference"] > 0
    assert found.about["space"] == classifier.name and found.about["reference_resize"].startswith("crop")


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Any]:
    """Images of two classes, three of them held out."""
    for split, count in (("train", 9), ("val", 3)):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(np.full((8, 8), 20 * number, np.uint8)).save(
                tmp_path / split / "ab"[number % 2] / f"{number}.png"
            )
    return {"source": "folder", "root": str(tmp_path), "image_size": 8, "channels": 1, "workers": 0}


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        (
            {"samples": 30, "judge": "CLASSIFIER"},
            r"evaluation\.judge: .*experiment_0001 was trained on other classes .*lacks a, b",
        ),
        ({"samples": 30, "judge": "/none"}, r"evaluation\.judge: /none is no experiment folder"),
        ({"samples": 30}, r"evaluation\.samples: 3 held-out image\(s\) are too few"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_training_and_by_the_check(
    folders: dict[str, Any], classifier: Path, evaluation: dict[str, Any], said: str
) -> None:
    changes = {key: str(classifier) if value == "CLASSIFIER" else value for key, value in evaluation.items()}
    config = config_of(data=folders, training={"global_batch_size": 4}, evaluation=changes)
    if "judge" in evaluation:  # nothing but the judge is wrong
        (Path(folders["root"]) / "val" / "a" / "9.png").write_bytes(
            (Path(folders["root"]) / "val" / "a" / "0.png").read_bytes()
        )
    with pytest.raises(UserError, match=said) as refused:
        DiffusionTask(config, ALONE)
    (checked,) = look(config)
    assert checked.errors == str(refused.value).splitlines()
    if changes.get("judge") == "/none":
        with pytest.raises(UserError, match=said):
            check_inputs(config)
    else:
        check_inputs(config)
