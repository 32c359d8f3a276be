"""Prediction from the command line: files, folders and tables in, one table out, broken images named."""

from __future__ import annotations

import csv
import shutil
import socket
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from classification.predict import add_arguments
from classification.spec import SPEC
from engine.commands.arguments import EvaluateArguments, parse_predict_arguments
from engine.commands.entry import exit_code
from engine.commands.evaluate import run_evaluation
from engine.commands.predict import run_prediction
from tests.classification.small import TRAIN, folder_data, write_config, write_images, write_multilabel_data
from tests.distributed import Ended, launch

PREDICT = [sys.executable, "-m", "classification.predict"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A run on class folders, whose data are gone, and new images, some of them broken."""
    place = tmp_path_factory.mktemp("predict")
    write_images(place / "train", {"a": 8, "b, c": 8})
    write_images(place / "val", {"a": 6, "b, c": 5}, seed=1)
    config = write_config(place, data=folder_data(place), training={"steps": 3, "global_batch_size": 8})
    (ended,) = launch(1, [*TRAIN, "--config", str(config)], cwd=place)
    assert ended.returncode == 0, ended.output
    run_evaluation(SPEC, EvaluateArguments(place / "experiments" / "experiment_0001", "best", "val", []))
    shutil.rmtree(place / "train")
    shutil.move(place / "val", place / "new")
    (place / "new" / "deep" / "er").mkdir(parents=True)
    (place / "new" / "deep" / "er" / "broken.jpg").write_bytes((place / "new/a/000.jpg").read_bytes()[:300])
    (place / "new" / "empty.png").touch()
    (place / "new" / "notes.txt").write_text("no image")
    return place


def predict(place: Path, *arguments: str, ranks: int = 1, new_interpreter: bool = False) -> Ended:
    experiment = str(place / "experiments" / "experiment_0001")
    command = [*PREDICT, "--experiment", experiment, *arguments]
    return launch(ranks, command, cwd=place, new_interpreter=new_interpreter)[0]


def rows_of(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.open()))


def test_a_folder_is_predicted_as_evaluate_did_and_what_is_broken_is_said(place):
    arguments = ["--images", "new", "--top-k", "1", "evaluation.batch_size=4"]
    ended = predict(place, *arguments, "--output", "one.csv", new_interpreter=True)
    assert ended.returncode == 0, ended.output
    rows = rows_of(place / "one.csv")
    assert list(rows[0]) == ["path", "class", "probability", "class_1", "probability_1", "error"]
    evaluated = {
        f"new/{row['image']}": row for row in rows_of(place / "experiments/experiment_0001/results/val/predictions.csv")
    }
    fine = [row for row in rows if not row["error"]]
    assert {row["path"] for row in fine} == set(evaluated) and len(fine) == 11
    for row in fine:
        assert (row["class"], row["class_1"]) == (evaluated[row["path"]]["class_1"],) * 2
        assert float(row["probability"]) == pytest.approx(float(evaluated[row["path"]]["probability_1"]), abs=2e-6)
    broken = {row["path"]: row for row in rows if row["error"]}
    assert set(broken) == {"new/deep/er/broken.jpg", "new/empty.png"}
    assert "it is empty" in broken["new/empty.png"]["error"] and not broken["new/empty.png"]["class"]
    assert "2 of 13 images cannot be read" in ended.output
    assert "left out: new/deep/er/broken.jpg: cannot be read as an image" in ended.output

    two = predict(place, *arguments, "data.workers=1", "--output", "two.csv", ranks=2)
    assert two.returncode == 0, two.output
    assert (place / "two.csv").read_bytes() == (place / "one.csv").read_bytes()


def test_files_and_tables_are_taken_in_their_order(place, monkeypatch):
    monkeypatch.chdir(place)
    (place / "list.csv").write_text("id,photo\n1,a/001.jpg\n2,missing.jpg\n")
    listed = ["--path-column", "photo", "--root", "new", "--output", "mixed.csv"]
    experiment = ["--experiment", "experiments/experiment_0001"]
    assert run_here(*experiment, "--images", "list.csv", "new/a/000.jpg", *listed) == 0
    rows = rows_of(place / "mixed.csv")
    assert [row["path"] for row in rows] == ["a/001.jpg", "missing.jpg", "new/a/000.jpg"]
    assert [bool(row["class"]) for row in rows] == [True, False, True]
    assert rows[1]["error"].endswith("no such image")
    assert [name for name in rows[0] if name.startswith("class_")] == ["class_1", "class_2"], "no more than there are"
    assert float(rows[0]["probability_1"]) + float(rows[0]["probability_2"]) == pytest.approx(1, abs=2e-6)


def test_columns_may_be_separated_otherwise_and_the_outputs_folder_is_made(place, monkeypatch):
    monkeypatch.chdir(place)
    (place / "list.csv").write_text("id;path\n1;new/a/001.jpg\n")
    out = ["--images", "list.csv", "--output", "made/for/it.csv"]
    assert run_here("--experiment", "experiments/experiment_0001", *out, "--delimiter", ";") == 0
    assert [row["path"] for row in rows_of(place / "made/for/it.csv")] == ["new/a/001.jpg"]
    assert parse_arguments("--experiment", "e", "--images", "a", "--delimiter", r"\t").delimiter == "\t"


def test_a_image_or_list_is_not_overwritten(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    (place / "list.csv").write_text("path\nnew/a/001.jpg\n")
    (place / "linked").symlink_to("new", target_is_directory=True)
    listed = (place / "list.csv").read_text()
    for images, output in (("list.csv", "./list.csv"), ("new", "linked/a/000.jpg"), ("list.csv", "new/a/001.jpg")):
        arguments = ["--experiment", "experiments/experiment_0001", "--images", images, "--output", output]
        assert exit_code(lambda given=arguments: run_here(*given)) == 2
        assert f"--output: {Path(output)} is one of --images and would be overwritten" in capsys.readouterr().err
    (place / "run.yaml").write_text("model: {name: swin_tiny}\n")
    arguments = ["--experiment", "experiments/experiment_0001", "--images", "new", "--output", "run.yaml"]
    assert exit_code(lambda: run_here(*arguments)) == 2
    assert "--output: run.yaml is there already and holds no predictions; name another file" in capsys.readouterr().err
    assert (place / "run.yaml").read_text() == "model: {name: swin_tiny}\n"
    with socket.socket(socket.AF_UNIX) as listening:  # which cannot be opened, whoever one is
        listening.bind("no_file")
        assert exit_code(lambda: run_here(*arguments[:-1], "no_file")) == 2
    assert "--output: no_file cannot be read: " in capsys.readouterr().err
    assert (place / "list.csv").read_text() == listed
    (place / "linked").unlink()


def test_a_checkpoint_that_is_none_is_said_in_our_words(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    (place / "list.csv").write_text("path\nnew/a/001.jpg\n")
    given = ["--experiment", "experiments/experiment_0001", "--images", "new", "--checkpoint", "list.csv"]
    assert exit_code(lambda: run_here(*given)) == 2
    said = capsys.readouterr().err
    assert "list.csv: cannot be read as a checkpoint: it is none, is damaged, or holds more than plain values" in said
    assert "weights_only" not in said


def test_a_swin_takes_images_of_another_size_with_its_trained_windows(place, monkeypatch):
    monkeypatch.chdir(place)
    given = ["--experiment", "experiments/experiment_0001", "--images", "new"]
    for size in (32, 12):  # at 12, a model of its own would have a smaller window in its second stage
        assert run_here(*given, "--output", "sized.csv", f"data.image_size={size}") == 0
        assert sum(not row["error"] for row in rows_of(place / "sized.csv")) == 11


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "nowhere"], "--images: there is no file or folder nowhere"),
        (["--images", "new/deep/er/broken.jpg"], "--images: none of the 1 images can be read; the first: new/deep"),
        (["--images", "new/notes.txt"], "cannot be read as an image"),
        (["--images", "new", "--output", "new"], "--output: new is a folder"),
        (["--images", "new", "optimizer.lr=1"], "optimizer.lr: cannot matter for a trained model"),
        (["--images", "list.csv"], "--path-column: list.csv has no column 'path' (it has: id, photo)"),
        (["--images", "other.csv"], "if ';' separates the columns, set --delimiter"),
        (["--images", "gap.csv"], "gap.csv:3: path: must be the path of an image, not ''"),
        (["--images", "new", "--output", "/proc/x.csv"], "--output: /proc cannot be written"),
    ],
)
def test_wrong_input_is_a_users_error_and_writes_nothing(place, arguments, message, monkeypatch, capsys):
    monkeypatch.chdir(place)
    (place / "list.csv").write_text("id,photo\n1,a/001.jpg\n")
    (place / "other.csv").write_text("id;path\n1;new/a/001.jpg\n")
    (place / "gap.csv").write_text("id,path\n1,new/a/001.jpg\n2,\n")
    before = {path.name for path in place.iterdir()}
    assert exit_code(lambda: run_here("--experiment", "experiments/experiment_0001", *arguments)) == 2
    assert message in capsys.readouterr().err
    assert {path.name for path in place.iterdir()} == before


def test_the_command_ends_with_2(place):
    for arguments, message in (
        (["new", "--top-k", "0"], "0 classes; at least 1"),
        (["no"], "error: --images: there is no file"),
    ):
        ended = predict(place, "--images", *arguments)
        assert ended.returncode == 2 and message in ended.output and "Traceback" not in ended.output


def run_here(*arguments: str) -> int:
    """The command in this process."""
    return run_prediction(SPEC, parse_arguments(*arguments))


def parse_arguments(*arguments: str) -> Namespace:
    return parse_predict_arguments("classification", "", add_arguments, arguments, SPEC.schema)


def test_several_labels_are_those_from_their_thresholds_on(tmp_path):
    data = write_multilabel_data(tmp_path / "images")
    config = write_config(tmp_path, data=data, loss={"name": "bce"}, training={"steps": 3})
    (ended,) = launch(1, [*TRAIN, "--config", str(config)], cwd=tmp_path)
    assert ended.returncode == 0, ended.output
    experiment = tmp_path / "experiments" / "experiment_0001"
    run_evaluation(SPEC, EvaluateArguments(experiment, "best", "val", []))
    evaluated = {row["image"]: row for row in rows_of(experiment / "results" / "val" / "predictions.csv")}
    images, out = str(tmp_path / "images"), str(tmp_path / "out.csv")
    assert run_here("--experiment", str(experiment), "--images", images, "--path-column", "file", "--output", out) == 0
    rows = {Path(row["path"]).name: row for row in rows_of(tmp_path / "out.csv")}
    for name, row in evaluated.items():
        assert rows[name]["classes"] == row["predicted"]
        for column in ("probability_red", "probability_green", "probability_blue"):
            assert float(rows[name][column]) == pytest.approx(float(row[column]), abs=2e-6)
