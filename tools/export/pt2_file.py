"""torch.export's .pt2: the graph and its weights, for torch without the suite."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from engine.exported.exportable import Exportable, Run
from engine.model.described import KEY


def write(model: Exportable, description: str, path: Path) -> None:
    """Writes a file for batches of any size and pictures of one."""
    batch = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        shapes = tuple({0: batch} for _ in model.inputs)
        program = torch.export.export(model.module, model.samples(2), dynamic_shapes=shapes)
        torch.export.save(program, path, extra_files={f"{KEY}.json": description})


def load(path: Path, model: Exportable) -> Run:
    """Loads a file by torch alone."""
    return of_module(torch.export.load(path).module(), model)


def of_module(module: Any, model: Exportable) -> Run:
    """Returns a module that takes and returns tensors as one of arrays."""

    def run(inputs: Any) -> dict[str, Any]:
        with torch.no_grad():
            found = module(*(torch.from_numpy(value) for value in inputs))
        return {name: value.numpy() for name, value in zip(model.outputs, found, strict=True)}

    return run
