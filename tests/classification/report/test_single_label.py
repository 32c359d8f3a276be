"""A report of a thousand classes stays one that can be read."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classification.metrics.predictions import MultiLabelPredictions, Predictions
from classification.metrics.sections import ClassificationEvaluationConfig
from classification.metrics.single_label import confusion, metrics
from classification.report.mistakes import worst_mistakes, wrong_labels
from classification.report.parts import LISTED, Report
from classification.report.plots import EXTREMES, classes_figure, extremes
from classification.report.single_label import write_report
from engine.datasets.labelled import ArrayImages
from engine.plots.evaluation import BLOCKS, CONFUSED, confusion_figure

MANY = 1000


@pytest.fixture(scope="module")
def many() -> tuple[Predictions, ArrayImages, np.ndarray]:
    """Predictions of 3,000 images of a thousand classes, the classes of more training images known better."""
    rng = np.random.default_rng(0)
    train_counts = rng.integers(2, 700, MANY)
    labels = rng.permutation(np.repeat(np.arange(MANY - 1), 4)[:3000])  # some classes never occur
    wrong = rng.random(len(labels)) < 0.6 - train_counts[labels] / 1400
    top = (labels[:, None] + np.arange(5)) % MANY
    top[wrong, 0], top[wrong, 1] = (labels[wrong] + 1) % MANY, labels[wrong]
    probabilities = np.sort(rng.dirichlet(np.ones(5), len(labels)), axis=1)[:, ::-1]
    predictions = Predictions(labels, top, probabilities, -np.log(probabilities[:, 0]))
    classes = [f"a species, {i} $x$" for i in range(MANY)]
    return predictions, ArrayImages(classes, labels, rng.integers(0, 255, (3000, 4, 6), dtype=np.uint8)), train_counts


def test_a_thousand_classes_make_a_short_report(many, tmp_path: Path):
    predictions, images, train_counts = many
    settings = ClassificationEvaluationConfig()
    report = Report(tmp_path / "val", "many", images, train_counts, settings, tmp_path / "metrics.jsonl")
    write_report(report, metrics(predictions), predictions)
    text = (tmp_path / "val" / "report.md").read_text()
    assert len(text.splitlines()) < 150 and len(text) < 10_000
    assert f"The best and the worst {LISTED // 2} of 750 by F1" in text and "250 classes have no images here" in text
    assert (
        sum(row["classes"] for row in json.loads((tmp_path / "val" / "metrics.json").read_text())["size_bins"]) == MANY
    )
    for name, most in {"confusion_matrix": 2400, "per_class": 1700, "reliability": 700, "worst_mistakes": 1100}.items():
        with Image.open(tmp_path / "val" / f"{name}.png") as image:
            assert max(image.size) <= most, name
    confusions = list(csv.DictReader((tmp_path / "val" / "confusions.csv").open()))
    wrong = (predictions.top[:, 0] != predictions.labels).sum()
    assert sum(int(row["images"]) for row in confusions) == wrong
    assert not (tmp_path / "val" / "curves.png").exists()


def test_figures_of_many_classes_name_only_those_that_tell_something(many):
    predictions, images, train_counts = many
    counts = confusion(predictions, MANY)
    confused, whole = confusion_figure(counts, images.classes, images.classes, train_counts, "Title").axes
    assert len(confused.get_yticks()) == CONFUSED and len(confused.get_xticks()) == CONFUSED + 1
    assert whole.images[0].get_array().shape == (BLOCKS, BLOCKS)
    np.testing.assert_allclose(whole.images[0].get_array().sum(axis=1), 1)
    recall, support = np.diag(counts) / np.maximum(counts.sum(axis=1), 1), counts.sum(axis=1)
    *_, bars = classes_figure(recall, support, images.classes, train_counts, "accuracy").axes
    assert len(bars.patches) == 2 * EXTREMES


def test_of_equal_classes_those_with_most_images_come_first():
    values, support = np.array([0.0, 1.0, 0.0, 1.0, 0.5]), np.array([2, 3, 9, 1, 0])
    assert extremes(values, support, 1).tolist() == [2, 0, 1, 3]
    assert extremes(values, support, -1).tolist() == [1, 3, 2, 0]


def test_the_worst_mistakes_are_the_surest():
    top = np.array([[0, 1], [1, 0], [0, 1], [1, 0]])
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.8, 0.2], [0.99, 0.01]])
    predictions = Predictions(np.array([1, 0, 1, 1]), top, probabilities, np.zeros(4))
    assert worst_mistakes(predictions, None, 2) == [0, 2]


def test_the_worst_mistakes_of_several_labels_have_the_largest_loss():
    labels = np.array([[1, 0], [0, 0], [1, 1], [0, 1]], bool)
    probabilities = np.array([[0.9, 0.6], [0.3, 0.2], [0.9, 0.8], [0.7, 0.1]])
    predictions = MultiLabelPredictions(labels, probabilities, np.array([0.5, 9.0, 0.1, 2.0]))
    thresholds = np.array([0.5, 0.5])
    assert worst_mistakes(predictions, thresholds, 9) == [3, 0]
    assert wrong_labels(predictions, 3, thresholds, "ab", digits=2) == ("b 0.10", "a 0.70")
