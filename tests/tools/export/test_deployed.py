"""Exported .onnx files in use by the suite: predict and the loaders take them in an experiment's place."""

from __future__ import annotations

import csv
import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classification import load_classifier
from classification.predict import add_arguments as classification_arguments
from detection import load_detector
from detection.predict import add_arguments as detection_arguments
from engine.commands.arguments import parse_predict_arguments
from engine.commands.entry import exit_code
from engine.commands.predict import run_prediction
from engine.errors import UserError
from engine.run_folder.used_config import require_exported
from engine.task.spec import find_spec
from tests.tools.export.exports import FLOAT32, export, kept

pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install -e '.[export]'")
pytest.importorskip("onnxscript", reason="needs onnxscript: pip install -e '.[export]'")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (30 + number, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    return tmp_path / "images"


def predict(task: str, *arguments: str) -> int:
    add = {"classification": classification_arguments, "detection": detection_arguments}[task]
    spec = find_spec(task)
    parsed: Namespace = parse_predict_arguments(task, "", add, arguments, spec.schema)
    return exit_code(lambda: run_prediction(spec, parsed))


@pytest.mark.parametrize("kind", ["swin", "several_labels"])
def test_a_classifier(request: pytest.FixtureRequest, kind: str, images: Path, tmp_path: Path) -> None:
    experiment = request.getfixturevalue(kind)
    file = kept(experiment, "onnx")
    tables = []
    for model in (experiment, file):
        out = tmp_path / f"of{model.suffix}.csv"
        given = ["--experiment", str(model), "--images", str(images), "--output", str(out)]
        assert predict("classification", *given) == 0
        tables.append(list(csv.DictReader(out.open())))
    ours, theirs = tables
    assert len(ours) == 6 and sum(bool(row["error"]) for row in theirs) == 1
    for row, other in zip(ours, theirs, strict=True):
        assert row.keys() == other.keys()
        for key, value in row.items():
            if key.startswith("probability") and value:
                assert float(other[key]) == pytest.approx(float(value), abs=1e-5)
            else:
                assert other[key] == value
    paths = sorted(images.glob("[0-9].png"))
    as_arrays = [np.asarray(Image.open(path)) for path in paths]
    exported = load_classifier(file)
    with pytest.raises(UserError, match=r"an exported model is no module of torch"):
        exported.inputs(paths)
    found = exported(as_arrays)
    for answer, other in zip(found, load_classifier(experiment, overrides=FLOAT32)(paths), strict=True):
        assert answer.classes == other.classes
        assert answer.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_a_detector(detector: Path, images: Path, tmp_path: Path) -> None:
    file = kept(detector, "onnx")
    given = ["--images", str(images), "--output"]
    assert predict("detection", "--experiment", str(file), *given, str(tmp_path / "theirs")) == 0
    assert predict("detection", "--experiment", str(detector), *given, str(tmp_path / "ours"), *FLOAT32) == 0
    ours, theirs = (json.loads((tmp_path / name / "detections.json").read_text()) for name in ("ours", "theirs"))
    assert len(ours["annotations"]) == len(theirs["annotations"]) > 0
    assert ours["categories"] == theirs["categories"] and ours["images"] == theirs["images"]
    for one, other in zip(ours["annotations"], theirs["annotations"], strict=True):
        assert other["category_id"] == one["category_id"]
        np.testing.assert_allclose(other["bbox"], one["bbox"], atol=1e-2)
    assert len(list((tmp_path / "theirs" / "images").iterdir())) == 5
    found = load_detector(file)([sorted(images.iterdir())[0]])
    assert len(found[0].scores) == sum(each["image_id"] == 1 for each in theirs["annotations"])
    with pytest.raises(UserError, match=r"model\.onnx is a model of detection, not of classification"):
        load_classifier(file)


def test_what_is_none_of_ours_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"a\.onnx cannot be read as an ONNX model"):
        load_classifier(tmp_path / "a.onnx")
    with pytest.raises(UserError, match=r"--experiment: there is no file .*b\.onnx"):
        require_exported(tmp_path / "b.onnx", [])
    with pytest.raises(UserError, match=r"data\.workers=0: a\.onnx holds its settings"):
        require_exported(tmp_path / "a.onnx", ["data.workers=0"])
    with pytest.raises(UserError, match=r"--checkpoint last: a\.onnx holds its weights"):
        require_exported(tmp_path / "a.onnx", [], "last")
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [value], [onnx.helper.make_tensor_value_info("y", 1, [1])])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(UserError, match=r"foreign\.onnx does not say how it is to be used"):
        load_classifier(tmp_path / "foreign.onnx")
    onnx.helper.set_model_props(model, {"swin_hpc": '{"task": "classification"}'})
    onnx.save(model, tmp_path / "damaged.onnx")
    with pytest.raises(UserError, match=r"damaged\.onnx: what it says of itself is damaged .*export it again"):
        load_classifier(tmp_path / "damaged.onnx")


def test_int8_costs_what_is_said(
    swin: Path, batch_normed: Path, detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(swin, "onnx", tmp_path / "small.onnx", "--int8") == 0
    said = capsys.readouterr().out
    assert "top1 on val 0." in said and " before and 0." in said
    assert json.loads((tmp_path / "small.onnx.json").read_text())["int8"] is True
    assert load_classifier(tmp_path / "small.onnx").inference is not None
    for experiment, why in ((batch_normed, "a convolutional model would be ten times slower"), (detector, "--int8")):
        assert export(experiment, "onnx", tmp_path / "b.onnx", "--int8") == 2
        assert why in capsys.readouterr().err and not (tmp_path / "b.onnx").exists()
