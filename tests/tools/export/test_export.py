"""Exports to what the suite's own packages read; ONNX where its packages are."""

from __future__ import annotations

import json
import shutil
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from detection import load_detector
from engine.errors import UserError
from tests.tools.export.exports import arrays, assert_same, expected, export, exportable, kept
from tools.export.__main__ import main
from tools.export.check import check
from tools.export.formats import FORMATS

CASES = [
    ("swin", ("onnx", "pt2", "torchscript", "safetensors", "timm", "transformers")),
    ("batch_normed", ("onnx", "pt2", "torchscript*", "safetensors*", "timm")),
    ("several_labels", ("onnx*", "pt2*", "torchscript", "safetensors*", "timm*", "transformers")),
    ("detector", ("onnx", "pt2", "torchscript", "safetensors*")),
    ("denoiser", ("onnx*", "pt2", "torchscript", "safetensors")),
]
"""Models and formats; those with a star are tried in ``make test-full`` alone."""


def each(cases: Sequence[tuple[str, Sequence[str]]]) -> list[Any]:
    pairs = [(model, name) for model, names in cases for name in names]
    return [
        pytest.param(model, name.strip("*"), marks=[pytest.mark.full] if name.endswith("*") else [])
        for model, name in pairs
    ]


def needs(name: str) -> None:
    if missing := FORMATS[name].missing:
        pytest.skip(f"needs {', '.join(missing)}: pip install -e '.[{FORMATS[name].extra}]'")


def description_in(path: Path, name: str) -> dict[str, Any]:
    """What a file says of itself, read without anything of the suite."""
    if name == "onnx":
        import onnxruntime

        text = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map["swin_hpc"]
    elif name == "safetensors":
        with safe_open(path, "pt") as file:
            text = file.metadata()["swin_hpc"]
    elif name in ("pt2", "torchscript"):
        with zipfile.ZipFile(path) as archive:
            (entry,) = (entry for entry in archive.namelist() if entry.endswith("swin_hpc.json"))
            text = archive.read(entry).decode()
    else:
        text = (path / "swin_hpc.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.parametrize(("model", "name"), each(CASES))
def test_every_export_says_what_we_say(request: pytest.FixtureRequest, model: str, name: str) -> None:
    """Batches of sizes that the exporter has not seen, and the classes read from the file alone."""
    needs(name)
    experiment = request.getfixturevalue(model)
    path = kept(experiment, name)
    ours = exportable(experiment, name)
    run = FORMATS[name].load(path, ours)
    assert check(ours, run, (1, 3, 7)) <= 1e-4
    if name == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        assert {node.shape[0] for node in (*session.get_inputs(), *session.get_outputs())} == {"batch"}, "symbolic"
    told = description_in(path, name)
    assert told["format"] == name
    assert told["checkpoint"]["file"] == "best.pt" and len(told["checkpoint"]["sha256"]) == 64
    assert told["classes"] == ours.description["classes"]
    if name not in ("timm", "transformers"):
        assert json.loads(path.with_name(f"{path.name}.json").read_text()) == told
        assert told["classes"][0] in path.with_name(f"{path.name}.md").read_text()


@pytest.mark.parametrize("name", ["onnx", "pt2", "torchscript"])
def test_another_size_and_floats_are_refused(swin: Path, name: str) -> None:
    needs(name)
    path = kept(swin, name)
    ours = exportable(swin, name)
    run, (images,) = FORMATS[name].load(path, ours), arrays(ours, 2)
    run([images])
    wrong: list[np.ndarray[Any, Any]] = [images[:, :, :8], images.astype(np.float32), images[:, :1]]
    for inputs in wrong if name != "torchscript" else wrong[:2]:
        with pytest.raises(Exception, match=r"(?i)image|dimension|type|shape|guard|expected|size"):
            run([inputs])


@pytest.mark.parametrize("name", ["onnx", pytest.param("pt2", marks=pytest.mark.full)])
def test_a_threshold_that_nothing_reaches_leaves_no_detections(detector: Path, tmp_path: Path, name: str) -> None:
    needs(name)
    ours = exportable(detector, name)
    most = float(expected(ours, *arrays(ours, 3))["scores"].max())
    path, setting = tmp_path / "model", f"detection.postprocess.score_threshold={max(0.99, (1 + most) / 2)}"
    assert export(detector, name, path, setting) == 0
    ours = exportable(detector, name, setting)
    found = FORMATS[name].load(path, ours)(arrays(ours, 3))
    assert found["counts"].tolist() == [0, 0, 0] and not found["boxes"].any()
    assert description_in(path, name)["changes"] == [setting]


@pytest.mark.parametrize("name", ["onnx", pytest.param("pt2", marks=pytest.mark.full)])
def test_pictures_of_a_batch_do_not_touch_each_other(detector: Path, tmp_path: Path, name: str) -> None:
    """Five pictures of which two are blank, with thresholds at which they have unequal counts."""
    needs(name)
    ours = exportable(detector, name)
    (images,) = arrays(ours, 5)
    images[[1, 3]] = 0
    scores = expected(ours, images)["scores"]
    setting = f"detection.postprocess.score_threshold={float(np.quantile(scores[0], 0.8)):.4f}"
    path = tmp_path / "model"
    assert export(detector, name, path, setting) == 0
    ours = exportable(detector, name, setting)
    run = FORMATS[name].load(path, ours)
    together = run([images])
    assert len(set(together["counts"].tolist())) > 1
    for row in range(5):
        assert_same(run([images[row : row + 1]]), together, slice(row, row + 1))


@pytest.mark.parametrize("name", [pytest.param("onnx", marks=pytest.mark.full), "pt2", "torchscript"])
def test_a_detector_without_suppression(detector: Path, tmp_path: Path, name: str) -> None:
    needs(name)
    file = tmp_path / f"model{FORMATS[name].ending}"
    assert export(detector, name, file, "--raw") == 0
    ours = exportable(detector, name, raw=True)
    inputs = arrays(ours, 3)
    found = FORMATS[name].load(file, ours)(inputs)
    assert list(found) == ["logits", "codes", "priors"]
    assert_same(found, expected(ours, *inputs))
    if name == "onnx":
        with pytest.raises(UserError, match="ends before suppression; export it without --raw"):
            load_detector(tmp_path / "model.onnx")


@pytest.mark.parametrize("name", ["onnx", "safetensors", "timm"])
def test_tampered_weights_are_not_kept(
    swin: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needs(name)
    module = __import__(f"tools.export.{FORMATS[name].write.part.partition(':')[0].rpartition('.')[2]}", fromlist=["x"])
    honest = module.write

    def tampering(model: Any, description: str, path: Path) -> None:
        with torch.no_grad():
            (weight := model.network.norm.weight).mul_(1.01)
            honest(model, description, path)
            weight.div_(1.01)

    monkeypatch.setattr(module, "write", tampering)
    assert export(swin, name, tmp_path / "model") == 1
    assert "the exported model is not ours: logits differs by up to" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_sizes_that_others_pad_are_refused_by_name(
    swin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(swin, "timm", tmp_path / "model", "--image-size", "20") == 2
    assert "--format timm: at 20 x 20 pixels the map of stage 1, 10 x 10, is padded to windows of 4" in (
        capsys.readouterr().err
    )
    assert export(swin, "pt2", tmp_path / "model.pt2", "--image-size", "20") == 0
    assert description_in(tmp_path / "model.pt2", "pt2")["input"]["shape"] == ["batch", 3, 20, 20]


def test_what_is_there_stays(swin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.json").write_text("mine")
    assert export(swin, "safetensors", tmp_path / "model") == 2
    assert "model.json is there already; remove it or name another one" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["model.json"]
    assert main(["--experiment", str(tmp_path), "--format", "pt2"]) == 2
    assert "is no experiment folder" in capsys.readouterr().err
    assert main(["--experiment", str(tmp_path / "none"), "--format", "pt2"]) == 2
    assert "none is not there" in capsys.readouterr().err


def test_a_full_disk_is_said_before_and_files_are_as_others_may_read_them(
    swin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000))
        assert export(swin, "torchscript", tmp_path / "model.pt") == 2
    assert "--output: 0.1 MB are free in" in capsys.readouterr().err and not list(tmp_path.iterdir())
    assert export(swin, "safetensors", tmp_path / "model.safetensors") == 0
    assert len({file.stat().st_mode for file in tmp_path.iterdir()}) == 1


def test_a_model_that_a_format_does_not_take(
    swin: Path, detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(detector, "timm", tmp_path / "a") == 2
    assert "--format timm: does not take models that say boxes; onnx, pt2," in capsys.readouterr().err
    assert export(swin, "pt2", tmp_path / "a", "--raw") == 2
    assert "--raw: is for detectors" in capsys.readouterr().err
    assert export(swin, "pt2", tmp_path / "a", "--int8") == 2
    assert "--int8: is for --format onnx" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_list_says_what_is_missing_and_pip_how(
    swin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.export.formats._version", lambda package: "" if package == "litert-torch" else "1")
    assert main(["--format", "list"]) == 0
    rows = {line.split(" | ")[0].strip("| "): line for line in capsys.readouterr().out.splitlines()}
    assert {*FORMATS} <= {*rows}
    assert "no: litert-torch" in rows["tflite"] and "| yes |" in rows["onnx"]
    assert export(swin, "tflite", tmp_path / "a") == 2
    said = capsys.readouterr().err
    assert "--format tflite: needs litert-torch: pip install -e '.[tflite]' in an environment of its own" in said


def test_what_is_not_offered_is_answered_in_a_line(
    swin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--format", "list"]) == 0
    _, last = capsys.readouterr().out.split("Not offered:\n")
    given = ["--experiment", str(swin), "--output", str(tmp_path / "a"), "--format"]
    for asked, serves in (
        (["saved_model"], "use onnx or tflite"),
        (["tfjs"], "onnx runs in browsers"),
        (["aot_inductor"], "the file of --format pt2"),
        (["onnx", "--half"], "--int8 makes a smaller file"),
    ):
        assert main([*given, *asked]) == 2
        said = capsys.readouterr().err
        name = asked[-1] if asked[-1].startswith("--") else f"--format {asked[-1]}"
        assert said.count("\n") == 1 and f"{name}: is not offered: " in said and serves in said
        assert f"- {name}: " in last
    assert main([*given, "onxx"]) == 2
    assert "--format onxx: there is no such format; onnx, pt2, torchscript" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main([*given, "torch_export"]) == 0
    assert description_in(tmp_path / "a", "pt2")["format"] == "pt2"


def test_torchscript_and_pt2_load_without_the_suite(detector: Path) -> None:
    """What they hold names no module of ours: torchvision's operations alone."""
    graph = str(torch.export.load(kept(detector, "pt2")).graph)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = str(torch.jit.load(kept(detector, "torchscript")).inlined_graph)
    assert "torchvision.nms" in graph and "torchvision::nms" in traced
    assert "swin_hpc" not in graph and "swin_hpc" not in traced


@pytest.mark.parametrize("name", ["onnx", "pt2"])
def test_a_batch_normed_model_keeps_its_accuracy(batch_normed: Path, name: str) -> None:
    needs(name)
    ours, file = exportable(batch_normed, name), kept(batch_normed, name)
    assert ours.accuracy is not None
    found = ours.accuracy(FORMATS[name].load(file, ours))
    told = description_in(file, name)
    assert told["checkpoint"]["weights"] == "ema" and found["top1"] == pytest.approx(told["metrics"]["top1"], abs=0.02)


def test_keras_loads_what_its_model_says(make: Callable[..., Path], tmp_path: Path) -> None:
    """To a .keras file with preprocessing within, and back into a model of ours: the same weights."""
    needs("keras")
    from engine.keras_models.weights import read_layers, to_state

    data = {"source": "digits", "image_size": 48, "workers": 0}
    training = {"steps": 1, "global_batch_size": 4}
    experiment = make(model={"name": "keras/MobileNetV3Large"}, data=data, training=training)
    file = tmp_path / "model.keras"
    assert export(experiment, "keras", file) == 0
    ours = exportable(experiment, "keras")
    state = to_state("keras/MobileNetV3Large", ours.network, read_layers(file), file.name)
    for key, value in ours.network.state_dict().items():
        torch.testing.assert_close(state[key], value, rtol=0, atol=0)
    with zipfile.ZipFile(file) as archive:
        assert json.loads(archive.read("swin_hpc.json"))["model"] == "keras/MobileNetV3Large"


def test_what_an_exporter_cannot_do_is_said_in_a_line(
    swin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lacking(*inputs: Any) -> None:
        raise RuntimeError("\nno such operation: fold\nand a page of more")

    monkeypatch.setattr("tools.export.pt2_file.write", lacking)
    assert export(swin, "pt2", tmp_path / "a") == 2
    assert "its exporter cannot write swin (RuntimeError: no such operation: fold); try" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
