"""The programs of docs/export.md, run as they stand: they say of pictures what the suite says."""

from __future__ import annotations

import ast
import csv
import functools
import http.server
import json
import re
import runpy
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from classification import load_classifier
from engine.datasets.labelled import open_digits
from engine.images.lazy_image import load_image
from engine.images.preprocessing import Preprocessing
from engine.images.transforms import EvalTransform
from tests.browser import browser
from tests.environment import ROOT
from tests.tools.export.exports import FLOAT32, assert_same, expected, export, exportable, kept
from tools.export.formats import FORMATS

PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
PROGRAMS = {
    match[2]: match[0].partition("\n")[2].removesuffix("```")
    for match in re.finditer(r"```(python|javascript)\n(?:#|//) (\S+)\n.*?^```", PAGE, re.DOTALL | re.MULTILINE)
}
NODE = ROOT / ".node" / "node_modules"
DROP = """fetch('PLACE').then(answer => answer.blob()).then(blob => {
  const given = new DataTransfer();
  given.items.add(new File([blob], 'picture.png', { type: 'image/png' }));
  document.getElementById('said').textContent = '';
  document.getElementById('drop').dispatchEvent(new DragEvent('drop', { dataTransfer: given }));
})"""
NEAR = 0.02
"""Of probabilities, where programs resize in ways of their own."""
WEB = NODE / "onnxruntime-web" / "dist"


def require(*packages: str) -> None:
    for package in packages:
        pytest.importorskip(package, reason=f"needs {package}: see docs/export.md")


def run(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: Path) -> list[str]:
    """What a program of the page prints; it knows nothing of the suite."""
    assert not re.search(r"import (classification|detection|engine|tools)", PROGRAMS[name])
    folder = arguments[0].parent
    for file in (name, "picture.py"):
        (folder / file).write_text(PROGRAMS[file], encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    capsys.readouterr()
    runpy.run_path(str(folder / name), run_name="__main__")
    return capsys.readouterr().out.splitlines()


def write_digits(folder: Path, count: int) -> list[Path]:
    """The first held-out digits as PNG files of the model's size."""
    folder.mkdir()
    images, paths = open_digits("val"), []
    for number in range(count):
        paths.append(folder / f"{number:03d}.png")
        images.image(number).pillow().resize((16, 16), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


def logits_of(experiment: Path, paths: list[Path]) -> np.ndarray[Any, Any]:
    pixels = np.stack([np.asarray(Image.open(path)).transpose(2, 0, 1) for path in paths])
    return expected(exportable(experiment, "pt2"), pixels)["logits"]


def test_the_python_program_answers_as_evaluate_does(
    swin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All 360 held-out digits as PNG files."""
    require("onnxscript", "onnxruntime")
    from classification.spec import SPEC
    from engine.commands.arguments import EvaluateArguments
    from engine.commands.evaluate import run_evaluation

    kept(swin, "onnx", tmp_path)
    images = open_digits("val")
    (tmp_path / "digits").mkdir()
    for number in range(len(images)):
        images.image(number).pillow().save(tmp_path / "digits" / f"{number:03d}.png")
    said = run("answer.py", monkeypatch, capsys, tmp_path / "model.onnx", *sorted((tmp_path / "digits").iterdir()))
    run_evaluation(SPEC, EvaluateArguments(swin, "best", "val", []))
    rows = list(csv.DictReader((swin / "results" / "val" / "predictions.csv").open()))
    assert [line.split()[1] for line in said] == [row["class_1"] for row in rows] and len(said) == 360
    for line, row in zip(said, rows, strict=True):
        assert float(line.split()[2]) == pytest.approx(float(row["probability_1"]), abs=1e-4)


def test_the_python_program_finds_what_the_detector_finds(
    detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require("onnxscript", "onnxruntime")
    kept(detector, "onnx", tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), dtype=np.uint8)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, own in zip(paths, pixels, strict=True):
        Image.fromarray(own).save(path)
    said = run("answer.py", monkeypatch, capsys, tmp_path / "model.onnx", *paths)
    ours = expected(exportable(detector, "pt2"), pixels.transpose(0, 3, 1, 2))
    names = [
        f"{path} {('circle', 'square')[label]}"
        for path, labels, count in zip(paths, ours["labels"], ours["counts"], strict=True)
        for label in labels[:count]
    ]
    assert [" ".join(line.split()[:2]) for line in said] == names and ours["counts"].min() > 0
    check_page_and_node(tmp_path, paths, ours)


@pytest.mark.parametrize(("name", "format_name"), [("answer_timm.py", "timm"), ("answer_torch.py", "pt2")])
def test_programs_on_torch(
    swin: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    format_name: str,
) -> None:
    kept(swin, format_name, tmp_path)
    paths = write_digits(tmp_path / "digits", 3)
    said = run(name, monkeypatch, capsys, tmp_path / f"model{FORMATS[format_name].ending}", *paths)
    for line, logits in zip(said, logits_of(swin, paths), strict=True):
        found = ast.literal_eval(line[re.search(r"[\[{]", line).start() :])  # type: ignore[union-attr]
        np.testing.assert_allclose(found["logits"] if format_name == "pt2" else found, logits, atol=1e-4)


@pytest.mark.parametrize("format_name", ["timm", "transformers"])
def test_transformers_loads_both_folders(
    swin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], format_name: str
) -> None:
    require("transformers")
    kept(swin, format_name, tmp_path)
    paths = write_digits(tmp_path / "digits", 3)
    said = run("answer_transformers.py", monkeypatch, capsys, tmp_path / "model", *paths)
    for line, logits in zip(said, logits_of(swin, paths), strict=True):
        _, label, values = line.split(" ", 2)
        np.testing.assert_allclose(ast.literal_eval(values), logits, atol=1e-4)
        assert label == str(int(logits.argmax()))


@pytest.mark.parametrize("kind", ["swin", pytest.param("detector", marks=pytest.mark.full)])
def test_the_program_on_litert(
    request: pytest.FixtureRequest,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In an environment with ``.[tflite]``: the exporter's own check passes, and the page's program says the same."""
    if FORMATS["tflite"].missing:
        pytest.skip("needs litert-torch: pip install -e '.[tflite]' in an environment of its own")
    experiment = request.getfixturevalue(kind)
    file = kept(experiment, "tflite", tmp_path)
    told = json.loads(zipfile.ZipFile(file).read("swin_hpc.json"))
    size = told["input"]["shape"][2]
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for number, path in enumerate(paths):
        pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    said = run("answer_tflite.py", monkeypatch, capsys, file, *paths)
    model = exportable(experiment, "tflite")
    for line, path in zip(said, paths, strict=True):
        found = ast.literal_eval(line.partition(" ")[2])
        for name, ours in expected(model, np.asarray(Image.open(path)).transpose(2, 0, 1)[None]).items():
            np.testing.assert_allclose(found[name], ours[0], atol=1e-4)


def test_node_and_browser_classify_as_we_do(swin: Path, tmp_path: Path) -> None:
    require("onnxscript", "onnxruntime")
    kept(swin, "onnx", tmp_path)
    paths = write_digits(tmp_path / "digits", 3)
    pixels = np.stack([np.asarray(Image.open(path)).transpose(2, 0, 1) for path in paths])
    check_page_and_node(tmp_path, paths, expected(exportable(swin, "pt2"), pixels))


@pytest.mark.parametrize("resize", ["crop", "pad", "edge", "squash"])
def test_programs_cut_and_stretch_pictures_as_we_do(
    swin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], resize: str
) -> None:
    """Pictures without edges, which all resize alike but for rounding; two are not square, one is transparent."""
    require("onnxscript", "onnxruntime")
    how = {"crop": ["data.crop_pct=0.6"], "edge": ["data.pad_fill=edge"]}
    settings = [f"data.resize={'pad' if resize == 'edge' else resize}", *how.get(resize, [])]
    assert export(swin, "onnx", tmp_path / "model.onnx", *settings) == 0
    coarse = Image.fromarray(np.random.default_rng(3).integers(0, 256, (4, 4, 4), dtype=np.uint8), "RGBA")
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, size, mode in zip(paths, ((160, 96), (80, 128), (96, 96)), ("RGB", "RGB", "RGBA"), strict=True):
        coarse.resize(size, Image.Resampling.BICUBIC).convert(mode).save(path)
    answers = load_classifier(swin, overrides=[*settings, *FLOAT32])(paths)
    probabilities = np.array([[answer.probabilities[str(digit)] for digit in range(10)] for answer in answers])
    for line, row in zip(
        run("answer.py", monkeypatch, capsys, tmp_path / "model.onnx", *paths), probabilities, strict=True
    ):
        assert float(line.split()[2]) == pytest.approx(row.max(), abs=NEAR)
    if resize != "edge":  # the page says so
        check_page_and_node(tmp_path, paths, {"probabilities": probabilities}, NEAR)


def test_pictures_of_16_bits_or_turned_are_what_they_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values.astype(np.uint16) * 257).save(tmp_path / "b.png")
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(np.ascontiguousarray(values[::-1, ::-1])).save(tmp_path / "c.png", exif=exif)
    how = {"interpolation": "bicubic", "resize": "crop", "crop_pct": 0.8, "fill": [0, 0, 0], "pad_fill": "mean"}
    about, space = {"preprocessing": how, "input": {"shape": [1, 3, 32, 32]}}, dict[str, Any]()
    exec(PROGRAMS["picture.py"], space)
    plain, deep, turned = (space["pixels"](tmp_path / name, about)[0] for name in ("a.png", "b.png", "c.png"))
    assert np.array_equal(deep, plain) and np.array_equal(turned, plain)
    ours = EvalTransform(Preprocessing(32, 32, "crop", 0.8, "bicubic", (0.5,) * 3, (0.5,) * 3, decode="exact"))
    assert np.array_equal(ours(load_image(tmp_path / "a.png")).numpy()[None], plain)


def check_page_and_node(
    folder: Path, paths: list[Path], ours: dict[str, np.ndarray[Any, Any]], near: float = 1e-4
) -> None:
    """Compares the answers of node and of the page in a headless browser, whichever are there, with ours."""
    if not WEB.is_dir():
        pytest.skip("no onnxruntime-web (npm install --prefix .node onnxruntime-web@1.30 sharp)")
    if shutil.which("node") and (NODE / "sharp").is_dir():
        (folder / "answer.mjs").write_text(PROGRAMS["answer.mjs"], encoding="utf-8")
        (folder / "node_modules").symlink_to(NODE, target_is_directory=True)
        command = ["node", "answer.mjs", "model.onnx", *map(str, paths)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        for row, line in enumerate(done.stdout.splitlines()):
            found = json.loads(line)
            shaped = {name: np.reshape(found[name], values[:1].shape) for name, values in ours.items()}
            assert_same(shaped, ours, slice(row, row + 1), near)
    page = (ROOT / "docs" / "export_page.html").read_text(encoding="utf-8")
    local, replaced = re.subn(r"https://cdn\S+/dist/", "./ort/", page)
    assert replaced == 1
    (folder / "index.html").write_text(local, encoding="utf-8")
    (folder / "ort").symlink_to(WEB, target_is_directory=True)
    with served(folder) as address, browser(folder / "profile") as chromium:
        chromium.open(f"{address}/index.html")
        chromium.wait_for("document.getElementById('said').textContent === 'ready'")
        for row, path in enumerate(paths):
            place = path.relative_to(folder)
            found = chromium.run(f"fetch('{place}').then(r => r.blob()).then(window.answer)")
            chromium.run(DROP.replace("PLACE", str(place)))
            chromium.wait_for("document.getElementById('said').textContent")
            if "probabilities" in ours:
                np.testing.assert_allclose([value for _, value in found], ours["probabilities"][row], atol=near)
                best = max(found, key=lambda each: each[1])[0]
                assert chromium.run("document.getElementById('said').textContent") == f"This is {best}."
                continue
            count = int(ours["counts"][row])
            assert len(found) == count
            np.testing.assert_allclose([each["score"] for each in found], ours["scores"][row][:count], atol=1e-4)
            boxes = ours["boxes"][row][:count] * 48
            np.testing.assert_allclose([each["box"] for each in found], boxes, atol=1e-2)
            assert chromium.run("document.getElementById('shown').width") == 48
        assert not chromium.complaints


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serves a folder on this machine, as ``python -m http.server`` does."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
