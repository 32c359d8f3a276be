"""Reports of real runs: every number against scikit-learn's or a formula on predictions.csv, on 1 and 2 ranks."""

from __future__ import annotations

import csv
import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics as sk
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from classification.spec import SPEC
from engine.commands.arguments import EvaluateArguments
from engine.commands.evaluate import run_evaluation
from engine.distributed.heartbeat import Heartbeat
from engine.run_folder.paths import RunDir
from tests.classification.small import EVALUATE, TRAIN, folder_data, write_config, write_images, write_multilabel_data
from tests.distributed import launch

CLASSES = {"b|c": 4, "d$e$": 3, "Ähre": 12}


def succeed(world_size: int, command: list[str], cwd: Path) -> str:
    ended = launch(world_size, command, cwd=cwd)
    assert [end.returncode for end in ended] == [0] * world_size, ended[0].output
    return ended[0].output


def read(results: Path) -> tuple[dict, list[dict[str, str]], list[dict[str, str]]]:
    """metrics.json, predictions.csv and per_class.csv."""
    tables = [list(csv.DictReader((results / f"{name}.csv").open())) for name in ("predictions", "per_class")]
    return json.loads((results / "metrics.json").read_text()), tables[0], tables[1]


def assert_links_lead_to_images(results: Path) -> None:
    text = (results / "report.md").read_text()
    links = [part.split(")")[0] for part in text.split("](")[1:]]
    assert links and "](" in text
    for link in links:
        assert (results / link).is_file(), link
        if link.endswith(".png"):
            with Image.open(results / link) as image:
                assert min(image.size) > 150, link


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run on three classes of 12, 4 and 3 training images."""
    place = tmp_path_factory.mktemp("one label")
    write_images(place / "train", CLASSES)
    write_images(place / "val", {"b|c": 11, "d$e$": 20, "Ähre": 30}, seed=1)
    for number in range(9):  # wrong labels, so that there are mistakes whatever the model has learned
        (place / "val" / "Ähre" / f"{number:03d}.jpg").rename(place / "val" / "b|c" / f"x{number}.jpg")
    sections = {"data": folder_data(place), "evaluation": {"batch_size": 7, "size_bins": [4, 10]}}
    config = write_config(place, **sections, training={"steps": 3, "global_batch_size": 8})
    succeed(1, [*TRAIN, "--config", str(config)], place)
    return place / "experiments" / "experiment_0001"


def test_figures_and_report_are_made_in_a_phase_that_may_take_long(folder, monkeypatch):
    phases, at = [], Heartbeat.at
    monkeypatch.setattr(Heartbeat, "at", lambda *given: phases.append(given[1]) or at(*given))
    for made in ("classification.inference.measure", "engine.commands.evaluate.record_evaluation"):
        monkeypatch.setattr(made, lambda *_, made=made: phases.append(made.split(".")[-1] + " made") or {})
    assert run_evaluation(SPEC, EvaluateArguments(folder, "best", "val", [])) == 0
    made = ["gather", "measure", "measure made", "measure", "record_evaluation made", "end"]
    assert phases[phases.index("gather") :] == made


@pytest.fixture(scope="module")
def results(folder) -> Path:
    run_evaluation(SPEC, EvaluateArguments(folder, "best", "val", []))
    return folder / "results" / "val"


def test_every_number_is_that_of_the_listed_predictions(results):
    found, rows, table = read(results)
    labels = np.array([list(CLASSES).index(row["true"]) for row in rows])
    said = np.array([list(CLASSES).index(row["class_1"]) for row in rows])
    confidence = np.array([float(row["probability_1"]) for row in rows])
    assert found.pop("loss") == pytest.approx(np.mean([float(row["loss"]) for row in rows]), abs=1e-9)
    expected = {"top1": sk.accuracy_score(labels, said), "top5": 1.0}
    for average in ("macro", "micro", "weighted"):
        for name in ("precision", "recall", "f1"):
            score = getattr(sk, f"{name}_score")
            expected[f"{name}_{average}"] = score(labels, said, average=average, zero_division=0)
    edges = np.linspace(0, 1, 16)
    groups = [(confidence > low) & (confidence <= high) for low, high in pairwise(edges)]
    right = labels == said
    gaps = [group.mean() * abs(right[group].mean() - confidence[group].mean()) for group in groups if group.any()]
    expected["ece"] = sum(gaps)
    sizes = {row.pop("train_images"): row for row in found.pop("size_bins")}
    assert found == pytest.approx(expected, abs=1e-9)
    for name, members in {"0-3": [1], "4-9": [0], "10+": [2]}.items():
        chosen = np.isin(labels, members)
        accuracy = right[chosen].mean()
        expected = {"classes": 1, "images": chosen.sum(), "top1": accuracy, "top5": 1.0, "recall_macro": accuracy}
        assert sizes.pop(name) == pytest.approx(expected, abs=1e-9)
    assert not sizes
    scores = sk.precision_recall_fscore_support(labels, said, zero_division=0)
    for i, (name, count) in enumerate(CLASSES.items()):
        assert (table[i]["class"], table[i]["train_images"]) == (name, str(count))
        for column, values in zip(("precision", "recall", "f1", "support"), scores, strict=True):
            assert float(table[i][column]) == pytest.approx(values[i], abs=1e-9)


def test_the_report_links_what_is_there_and_lists_the_worst_mistakes_first(results):
    assert_links_lead_to_images(results)
    _, rows, _ = read(results)
    wrong = [(-float(row["probability_1"]), row["image"]) for row in rows if row["true"] != row["class_1"]]
    text = (results / "report.md").read_text()
    assert len(wrong) > 1, "an untrained model makes mistakes"
    places = [text.index(image.replace("|", "\\|")) for _, image in sorted(wrong, key=lambda pair: pair[0])[:24]]
    assert places == sorted(places)
    with Image.open(results / "worst_mistakes.png") as sheet:
        assert sheet.width == 6 * 182 + 6


def test_two_ranks_report_the_same(folder, results):
    before = (results / "metrics.json").read_text(), (results / "predictions.csv").read_text()
    (results / "metrics.json").unlink()
    succeed(2, [*EVALUATE, "--experiment", str(folder)], folder)
    assert before == ((results / "metrics.json").read_text(), (results / "predictions.csv").read_text())


def test_training_shows_images_and_leaves_curves(folder):
    tags = EventAccumulator(str(RunDir(folder).tensorboard)).Reload().Tags()["images"]
    assert {"val/confusion_matrix", "val/worst_mistakes"} <= set(tags)
    assert (folder / "results" / "curves.png").is_file()
    saved = torch.load(folder / "checkpoints" / "best.pt", weights_only=True)
    assert saved["metadata"]["train_counts"] == list(CLASSES.values())


def test_mirroring_averages_probabilities_and_keeps_the_earlier_results(folder, results):
    whole = read(results)[1]
    run_evaluation(SPEC, EvaluateArguments(folder, "best", "val", ["evaluation.tta=flip"]))
    changed = read(results)[1]
    assert [row["true"] for row in changed] == [row["true"] for row in whole]
    assert [row["probability_1"] for row in changed] != [row["probability_1"] for row in whole]
    assert "each is also mirrored" in (results / "report.md").read_text()
    assert any(
        "evaluation.tta=flip" not in path.name and path.name.startswith("val_") for path in results.parent.iterdir()
    )
    run_evaluation(SPEC, EvaluateArguments(folder, "best", "val", []))
    assert read(results)[1] == whole


def test_a_test_split_elsewhere_needs_no_training_images(folder, tmp_path, capsys):
    shutil.copytree(folder.parents[1] / "val", tmp_path / "data" / "test")
    shutil.rmtree(tmp_path / "data" / "test" / "b|c")
    run_evaluation(SPEC, EvaluateArguments(folder, "best", "test", [f"data.root={tmp_path / 'data'}"]))
    _, rows, table = read(folder / "results" / "test")
    assert len(rows) == 41 and [row["support"] for row in table] == ["0", "20", "21"]
    (tmp_path / "data" / "test" / "stranger").mkdir()
    assert run_evaluation(SPEC, EvaluateArguments(folder, "best", "test", [f"data.root={tmp_path / 'data'}"])) == 2
    assert "classes that the model was not trained on: stranger" in capsys.readouterr().err


@pytest.fixture(scope="module")
def labels_folder(tmp_path_factory) -> Path:
    """A run on images with several labels."""
    place = tmp_path_factory.mktemp("several labels")
    data = write_multilabel_data(place / "images")
    config = write_config(place, data=data, loss={"name": "bce"}, training={"steps": 3})
    succeed(1, [*TRAIN, "--config", str(config)], place)
    return place / "experiments" / "experiment_0001"


def test_reports_of_several_labels_equal_scikit_learn_on_any_number_of_ranks(labels_folder):
    results = labels_folder / "results" / "val"
    succeed(2, [*EVALUATE, "--experiment", str(labels_folder)], labels_folder)
    on_two = (results / "metrics.json").read_text()
    run_evaluation(SPEC, EvaluateArguments(labels_folder, "best", "val", []))
    assert (results / "metrics.json").read_text() == on_two
    found, rows, table = read(results)
    classes = [row["class"] for row in table]
    labels = np.array([[name in row["true"].split("|") for name in classes] for row in rows])
    values = np.array([[float(row[f"probability_{name}"]) for name in classes] for row in rows])
    thresholds = np.array([float(row["threshold"]) for row in table])
    saved = torch.load(labels_folder / "checkpoints" / "best.pt", weights_only=True)
    assert thresholds.tolist() == saved["run"]["findings"]["thresholds"]
    for end, said in (("", values >= 0.5), ("_tuned", values >= thresholds)):
        assert found[f"hamming_loss{end}"] == pytest.approx(sk.hamming_loss(labels, said), abs=1e-9)
        assert found[f"subset_accuracy{end}"] == pytest.approx(sk.accuracy_score(labels, said), abs=1e-9)
        for average in ("macro", "micro", "weighted"):
            score = sk.f1_score(labels, said, average=average, zero_division=0)
            assert found[f"f1_{average}{end}"] == pytest.approx(score, abs=1e-9)
    assert found["mAP"] == pytest.approx(sk.average_precision_score(labels, values, average="macro"), abs=1e-9)
    scores = sk.precision_recall_fscore_support(labels, values >= thresholds, zero_division=0)
    for i, row in enumerate(table):
        assert int(row["train_images"]) == saved["metadata"]["train_counts"][i]
        for column, expected in zip(("precision", "recall", "f1", "support"), scores, strict=True):
            assert float(row[column]) == pytest.approx(expected[i], abs=1e-9)
    said = ["|".join(np.array(classes)[row]) for row in values >= thresholds]
    assert [row["predicted"] for row in rows] == said
    assert_links_lead_to_images(results)
    assert sum(row["positives"] for row in found["size_bins"]) == labels.sum()
