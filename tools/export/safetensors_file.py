"""The bare weights, under the names that the suite's models have."""

from __future__ import annotations

import copy
from pathlib import Path

from safetensors.torch import load_file, save_file

from engine.exported.exportable import Exportable, Run
from engine.model.described import KEY
from tools.export.pt2_file import of_module


def write(model: Exportable, description: str, path: Path) -> None:
    """Writes weights and statistics, with the description in the header."""
    state = {name: tensor.contiguous().clone() for name, tensor in model.network.state_dict().items()}
    save_file(state, path, metadata={KEY: description, "format": "pt"})


def load(path: Path, model: Exportable) -> Run:
    """Loads the file into a copy of the model, all of whose own weights are gone."""
    state = load_file(path)
    theirs = copy.deepcopy(model.reference)
    network = next(part for name, part in theirs.named_children() if name == "model")
    for tensor in network.state_dict().values():
        tensor.zero_()
    network.load_state_dict(state)
    return of_module(theirs, model)
