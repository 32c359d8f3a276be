"""TensorFlow Lite, LiteRT by now: for one picture at a time."""

from __future__ import annotations

import zipfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.exported.exportable import Exportable, Run
from engine.model.described import KEY
from tools.export.onnx_file import quietly


def write(model: Exportable, description: str, path: Path) -> None:
    """Writes a file, at whose end a zip archive holds the description, as TensorFlow Lite's metadata have it."""
    with quietly(), torch.no_grad(), redirect_stdout(StringIO()):  # it prints each of its steps
        import litert_torch

        converted = litert_torch.convert(model.module, model.samples(1))
        converted.export(str(path))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{KEY}.json", description)


def load(path: Path, model: Exportable) -> Run:
    """Loads a file into LiteRT's interpreter. Its outputs come in our order, of which the names are not kept."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    runner = interpreter.get_signature_runner()
    names = sorted(runner.get_input_details())

    def run(inputs: Any) -> dict[str, Any]:
        found = runner(**dict(zip(names, inputs, strict=True)))
        values = [found[name] for name in sorted(found, key=lambda name: int(name.rpartition("_")[2]))]
        return {name: np.asarray(value) for name, value in zip(model.outputs, values, strict=True)}

    return run
