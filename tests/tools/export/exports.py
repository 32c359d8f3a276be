"""Exports in the process of a test, and what the suite itself says of the same images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.exported.exportable import Exportable, Outputs
from engine.task.spec import find_spec
from tools.export.__main__ import FLOAT32, main, opened
from tools.export.check import TOLERANCE
from tools.export.formats import FORMATS


def export(experiment: Path, name: str, output: Path, *more: str) -> int:
    return main(["--experiment", str(experiment), "--format", name, "--output", str(output), *more])


def kept(experiment: Path, name: str, into: Path | None = None) -> Path:
    """An export of ``experiment``, which is made once for all tests of a process; ``into``: copied to this folder."""
    path = experiment / "exported" / name / f"model{FORMATS[name].ending}"
    if not path.exists():
        assert export(experiment, name, path) == 0
    if into is None:
        return path
    for file in path.parent.iterdir():
        copy = shutil.copytree if file.is_dir() else shutil.copy
        copy(file, into / file.name)
    return into / path.name


def exportable(experiment: Path, name: str, *overrides: str, raw: bool = False) -> Exportable:
    """What an export of ``experiment`` starts from."""
    task = json.loads((experiment / "environment.json").read_text())["task"]
    return opened(find_spec(task), experiment, "best", FORMATS[name], [*FLOAT32, *overrides], raw)[1]


def expected(model: Exportable, *inputs: Any) -> dict[str, np.ndarray[Any, Any]]:
    """What the trained model says."""
    with torch.no_grad():
        found = model.reference(*(torch.from_numpy(value) for value in inputs))
    return {name: value.numpy() for name, value in zip(model.outputs, found, strict=True)}


def assert_same(found: Any, ours: Any, rows: slice = slice(None), near: float = 1e-4) -> None:
    ours = {name: values[rows] for name, values in ours.items()}
    found = in_our_order(found, ours)
    for name, values in ours.items():
        np.testing.assert_allclose(found[name], values, rtol=near, atol=near, err_msg=name)
        if np.issubdtype(values.dtype, np.integer):
            np.testing.assert_array_equal(found[name], values, err_msg=name)


def in_our_order(found: Outputs, ours: Outputs) -> Outputs:
    """Returns detections whose scores are alike but for rounding, which decided their order, in the order of ours.

    What has no match, and every other output, stays as it is.
    """
    found = {name: np.array(values) for name, values in found.items()}
    alike_shapes = all(found[name].shape == values.shape for name, values in ours.items())
    if "counts" not in ours or not alike_shapes or (found["counts"] != ours["counts"]).any():
        return found
    for image, count in enumerate(ours["counts"].tolist()):
        own, theirs = ({name: each[name][image] for name in ("boxes", "scores", "labels")} for each in (ours, found))
        order: list[int] = []
        for row in range(count):
            alike = np.abs(theirs["scores"][:count] - own["scores"][row]) <= TOLERANCE
            alike &= theirs["labels"][:count] == own["labels"][row]
            alike[order] = False
            if not alike.any():
                break
            far = np.abs(theirs["boxes"][:count] - own["boxes"][row]).max(axis=1)
            order.append(int(np.where(alike, far, np.inf).argmin()))
        else:
            for values in theirs.values():
                values[:count] = values[order]
    return found


def arrays(model: Exportable, count: int) -> list[np.ndarray[Any, Any]]:
    return [value.numpy() for value in model.samples(count)]
