"""Trained models from Python: for paths and for images they say what the commands say."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from classification import load_classifier
from detection import load_detector
from engine.commands.arguments import TrainArguments
from engine.commands.train import run_training
from engine.errors import UserError
from engine.process.signals import StopRequest
from engine.task.loading import LoadedModel
from engine.task.spec import find_spec
from tests.classification import small as small_classification
from tests.detection import small as small_detection
from tests.distributed import launch


def train(task: str, config: Path) -> Path:
    assert run_training(find_spec(task), TrainArguments(config, None, False, ()), StopRequest()) == 0
    return config.parent / "experiments" / "experiment_0001"


def predict(task: str, experiment: Path, images: Path, output: Path) -> None:
    command = [sys.executable, "-m", f"{task}.predict", "--experiment", str(experiment), "--images", str(images)]
    (ended,) = launch(1, [*command, "--output", str(output)])
    assert ended.returncode == 0, ended.output


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Five images, the last on its side."""
    (tmp_path / "images").mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (30 + number, 40, 3), dtype=np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 4 else 1
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png", exif=exif)
    return tmp_path / "images"


def mixed(images: Path) -> list[str | Path | Image.Image]:
    """A path, a text, and images as Pillow opens them."""
    first, second, *others = sorted(images.iterdir())
    return [first, str(second), *map(Image.open, others)]


def test_a_classifier_says_what_predict_says(tmp_path: Path, images: Path) -> None:
    folder = train("classification", small_classification.write_config(tmp_path, evaluation={"batch_size": 2}))
    classifier = load_classifier(folder, device="cpu")
    assert isinstance(classifier, LoadedModel) and classifier([]) == []
    answers = classifier(mixed(images))
    predict("classification", folder, images, tmp_path / "p.csv")
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert [answer.classes for answer in answers] == [(row["class"],) for row in rows]
    for answer, row in zip(answers, rows, strict=True):
        assert len(answer.probabilities) == 10 and sum(answer.probabilities.values()) == pytest.approx(1)
        best = list(answer.probabilities.items())[:5]
        assert best == [
            (row[f"class_{place}"], pytest.approx(float(row[f"probability_{place}"]), abs=1e-6))
            for place in range(1, 6)
        ]
    grey = np.full((20, 20), 9, np.uint8)
    assert classifier([grey]) == classifier([np.stack([grey] * 3, axis=2)])
    for wrong in (grey.astype(np.float32), grey[None, None], np.zeros((3, 20, 20), np.uint8)):
        with pytest.raises(UserError, match=r"is no image; \(height, width, 3\) of uint8 is"):
            classifier([wrong])
    with pytest.raises(UserError, match=r"gone.png: no such image"):
        classifier(["gone.png"])
    for single in ("one.png", Path("one.png"), Image.new("RGB", (9, 9)), grey):
        with pytest.raises(TypeError, match=r"write \[image\] for one"):
            classifier(single)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"a path, an array or a Pillow image is needed, not bytes"):
        classifier([b"no image"])  # type: ignore[list-item]
    with pytest.raises(UserError, match=r"optimizer.lr: cannot matter for a trained model"):
        load_classifier(folder, overrides=["optimizer.lr=1"])


def test_a_classifiers_module_says_of_its_inputs_what_the_classifier_says(tmp_path: Path, images: Path) -> None:
    folder = train("classification", small_classification.write_config(tmp_path, model={"drop_path": 0.5}))
    classifier = load_classifier(folder, device="cpu")
    assert classifier.classes == [str(digit) for digit in range(10)] and not classifier.model.training
    answers, inputs = classifier(mixed(images)), classifier.inputs(mixed(images))
    assert inputs.shape == (5, 3, 16, 16) and inputs.dtype == torch.float32
    probabilities = classifier.model(inputs).softmax(1)
    probabilities.sum().backward()
    assert all(parameter.grad is not None for parameter in classifier.model.parameters())
    for answer, row in zip(answers, probabilities.tolist(), strict=True):
        assert [answer.probabilities[name] for name in classifier.classes] == pytest.approx(row, abs=1e-5)
    with pytest.raises(TypeError, match=r"write \[image\] for one"):
        classifier.inputs(images / "0.png")  # type: ignore[arg-type]


def test_several_labels_are_those_from_their_thresholds_on(tmp_path: Path) -> None:
    data = small_classification.write_multilabel_data(tmp_path / "images")
    config = small_classification.write_config(tmp_path, data=data, loss={"name": "bce"}, training={"steps": 3})
    folder = train("classification", config)
    (answer,) = load_classifier(folder, overrides=["evaluation.thresholds=0.0"])([tmp_path / "images" / "000.jpg"])
    assert answer.classes == ("blue", "green", "red") and set(answer.probabilities) == set(answer.classes)
    (answer,) = load_classifier(folder, overrides=["evaluation.thresholds=1.0"])([tmp_path / "images" / "000.jpg"])
    assert answer.classes == ()


def test_a_detector_finds_what_predict_finds(tmp_path: Path, images: Path) -> None:
    folder = train("detection", small_detection.write_config(tmp_path, training={"steps": 2}))
    detector = load_detector(folder, checkpoint="last", device="cpu")
    found = detector(mixed(images))
    predict("detection", folder, images, tmp_path / "found")
    written = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert sum(len(each.scores) for each in found) == len(written["annotations"]) > 0
    assert detector.classes == ["circle", "square"] and not detector.model.training
    torch.testing.assert_close(detector.inputs([images / "0.png"]), detector.inputs(mixed(images))[:1])
    assert detector.model(detector.inputs(mixed(images))).logits.shape[::2] == (5, 3)
    names = {category["id"]: category["name"] for category in written["categories"]}
    for number, each in enumerate(found, start=1):
        own = [annotation for annotation in written["annotations"] if annotation["image_id"] == number]
        assert each.classes == [names[annotation["category_id"]] for annotation in own]
        np.testing.assert_allclose(each.scores, [annotation["score"] for annotation in own], rtol=1e-4)
        sides = np.hstack([each.boxes[:, :2], each.boxes[:, 2:] - each.boxes[:, :2]])
        np.testing.assert_allclose(sides, [annotation["bbox"] for annotation in own], atol=1e-2)
    sizes = [(image["width"], image["height"]) for image in written["images"]]
    assert sizes == [(40, 30), (40, 31), (40, 32), (40, 33), (34, 40)]
