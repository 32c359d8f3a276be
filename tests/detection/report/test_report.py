"""The files that an evaluation leaves, and the images in them."""

from __future__ import annotations

import csv
import json
import warnings
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from detection.data.sections import ShapesData
from detection.data.synthetic_shapes import ShapeImages
from detection.report.coco_metrics import coco_evaluate
from detection.report.confusion import confuse
from detection.report.figures import best_and_worst, board_curves, board_images, confusion_matrix, curves
from detection.report.metric_names import METRICS
from detection.report.predictions import Predictions
from detection.report.report import report_text, write_report
from tests.detection.results import predictions, random_results, truth

IMAGES = ShapeImages(
    ShapesData.model_validate(
        {"source": "shapes", "val_images": 12, "canvas_size": (60, 80), "background": "noise", "scale": (0.2, 0.5)}
    ),
    "val",
)


def found() -> Predictions:
    """Almost all objects, the last image's under another class."""
    known = IMAGES.annotations
    owners = np.repeat(np.arange(12), np.diff(known.starts))
    labels = np.where(owners == owners.max(), (known.labels + 1) % 6, known.labels)
    scores = np.linspace(0.95, 0.5, len(owners))
    return predictions(12, known.boxes[1:], labels[1:], scores[1:], owners[1:])


def test_all_files_are_written_and_agree(tmp_path):
    result = coco_evaluate(found(), IMAGES.annotations)
    write_report(tmp_path / "val", "A title", result, found(), IMAGES)
    names = {path.name for path in (tmp_path / "val").iterdir()}
    tables = {f"{name}.csv" for name in ("per_class", "precision_recall", "confusion_matrix", "images")}
    shown = {f"{name}.png" for name in ("precision_recall", "confusion_matrix", "best", "worst")}
    assert names == {"metrics.json", "report.md", "detections.json", *tables, *shown}
    metrics = json.loads((tmp_path / "val" / "metrics.json").read_text())
    assert tuple(metrics) == METRICS and metrics["AP"] == result.metrics["AP"] and metrics["AP_large"] is None
    detections = json.loads((tmp_path / "val" / "detections.json").read_text())
    assert len(detections) == len(found().scores) and set(detections[0]) == {
        "image_id",
        "category_id",
        "bbox",
        "score",
    }
    rows = {name: list(csv.reader((tmp_path / "val" / name).read_text().splitlines())) for name in sorted(tables)}
    assert [len(rows[name]) for name in sorted(tables)] == [8, 13, 7, 102]  # in the order of their names
    assert rows["confusion_matrix.csv"][0][0] == "true \\ predicted"
    assert rows["per_class.csv"][0] == ["class", "AP", "AP50", "AR_100", "objects"]
    for name in shown:
        assert Image.open(tmp_path / "val" / name).size[0] > 200


def test_the_text_says_what_matters():
    result, confusion = coco_evaluate(found(), IMAGES.annotations), confuse(found(), IMAGES.annotations)
    text = report_text("A title", result, confusion, IMAGES.annotations.classes, ["best"])
    objects = len(IMAGES.annotations.boxes)
    assert text.startswith(f"# A title\n\n12 images with {objects} objects of 6 classes.")
    assert f"| AP50 | {result.metrics['AP50']:.4f} |" in text and "| AP_large | - |" in text
    assert "| true | predicted | times |" in text and text.endswith("\n![best](best.png)\n")


def test_many_classes_are_shown_by_their_best_and_worst():
    ids = list(range(1, 91))
    known = truth(2, [[0, 0, 50, 50]] * 90, range(90), [0] * 90, ids=ids)
    some = predictions(2, [[0, 0, 50, 50]] * 30, range(30), [0.9] * 30, [0] * 30)
    text = report_text("T", coco_evaluate(some, known), confuse(some, known), known.classes, [])
    assert text.count("| class ") == 1 + 20 and "The best and the worst 10 of 90" in text
    figures = [confusion_matrix(np.eye(n + 1, dtype=np.int64), ["name"] * n) for n in (20, 40, 90, 1203)]
    sides = [figure.get_size_inches()[1] for figure in figures]
    assert sides[0] < sides[1] and sides[2] == sides[3] < sides[1]  # all names, or those of some
    assert [text.get_text() for text in figures[1].axes[0].get_xticklabels()] == ["name"] * 40 + ["missed"]
    assert all(figure.axes[0].get_yticklabels()[-1].get_text() == "nothing" for figure in figures)
    assert figures[2].texts[0].get_text().endswith(": the 25 most confused of 90")
    assert figures[0].axes[0].texts, "of 20 classes, cells have numbers"
    lines = curves(coco_evaluate(some, known), known.classes).axes[0].get_lines()
    labels = [line.get_label() for line in lines if line.get_label()[0] != "_"]
    assert labels[0] == "class 1 (AP50 1.000)" and labels[-1].startswith("mean (AP50 ")


def test_best_and_worst_are_other_images():
    known, some = random_results(2)
    confusion = confuse(some, known)
    best, worst = best_and_worst(confusion, 5)
    assert len(best) == len(worst) == 5 and not set(best) & set(worst)
    f1 = confusion.f1
    assert min(f1[best]) >= max(f1[worst])
    assert f1[best[0]] == pytest.approx(np.nanmax(f1)) and f1[worst[0]] == pytest.approx(np.nanmin(f1))
    assert best_and_worst(confuse(predictions(3), truth(3))) == ([], [])


def test_an_evaluation_without_objects_or_detections_is_written_too(tmp_path):
    nothing = predictions(12)
    write_report(tmp_path, "Nothing found", coco_evaluate(nothing, IMAGES.annotations), nothing, IMAGES)
    assert json.loads((tmp_path / "detections.json").read_text()) == []
    assert json.loads((tmp_path / "metrics.json").read_text())["AP"] == 0.0


def test_names_of_classes_may_hold_anything(tmp_path):
    names = ["a|b", "<b>", "US$ and C$ \\frac", "犬", "_hidden", "a very long name of a class " * 4]
    known = replace(IMAGES.annotations, classes=names)
    images = Mock(wraps=IMAGES, annotations=known)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report(tmp_path, "Names", coco_evaluate(found(), known), found(), images)
    text = (tmp_path / "report.md").read_text()
    assert "| a\\|b |" in text and "&lt;b>" in text
    assert [row[0] for row in csv.reader((tmp_path / "per_class.csv").open(encoding="utf-8"))][1:] == names


def test_only_images_that_are_there_are_shown(tmp_path):
    known = truth(3)
    images = Mock(annotations=known)
    images.name = str
    write_report(tmp_path, "Nothing at all", coco_evaluate(predictions(3), known), predictions(3), images)
    text = (tmp_path / "report.md").read_text()
    for name in ("best", "worst", "precision_recall"):
        assert f"{name}.png" not in text and not (tmp_path / f"{name}.png").exists()
    assert "![confusion_matrix](confusion_matrix.png)" in text and (tmp_path / "confusion_matrix.png").exists()


def test_tensorboard_is_given_the_same_under_names_that_all_tasks_have():
    result = coco_evaluate(found(), IMAGES.annotations)
    drawn = board_images(result, confuse(found(), IMAGES.annotations), found(), IMAGES)
    assert set(drawn) == {"confusion_matrix", "best_images", "worst_mistakes"}
    points = board_curves(result, IMAGES.annotations.classes)
    objects = result.per_class["objects"]
    there = [name for name, count in zip(IMAGES.annotations.classes, objects, strict=True) if count]
    assert list(points) == ["all", *there]
    for name, count in zip(IMAGES.annotations.classes, objects, strict=True):
        if count:
            true, false, _, missed, precision, recall = points[name]
            assert (true + missed).tolist() == [count] * 101 and (false >= 0).all()
            assert recall.tolist() == sorted(recall, reverse=True), "the threshold rises"
            read_off = result.precision[IMAGES.annotations.classes.index(name)]
            assert precision[-1] == read_off[0] and recall[0] == pytest.approx(np.flatnonzero(read_off > 0).max() / 100)
            said = true > 0
            assert precision[said] == pytest.approx(true[said] / (true + false)[said])


def test_without_objects_or_finds_there_is_no_curve_or_a_flat_one():
    result = coco_evaluate(found(), IMAGES.annotations)
    nothing = replace(result, per_class={**result.per_class, "objects": np.zeros(6)})
    assert board_curves(nothing, IMAGES.annotations.classes) == {}
    missed = replace(result, precision=np.where(np.isnan(result.precision), np.nan, 0.0))
    assert not board_curves(missed, IMAGES.annotations.classes)["all"][4:].any()
