"""TorchScript by tracing: scripting fails on our models, and torch itself has moved on to torch.export."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.exported.exportable import Exportable, Run
from engine.model.described import KEY
from tools.export.pt2_file import of_module


class _Strict(nn.Module):
    """Refuses what a trace would take, and answer wrongly: images of another type or size.

    What the method returns is not annotated: TorchScript reads it from the trace.
    """

    def __init__(self, traced: Any, height: int, width: int) -> None:
        super().__init__()
        self.traced, self.height, self.width = traced, height, width

    def forward(self, images: Tensor):
        if images.dtype != torch.uint8:
            raise ValueError("images have to be uint8, (batch, 3, height, width)")
        if images.dim() != 4 or images.shape[2] != self.height or images.shape[3] != self.width:
            raise ValueError("the model was exported for images of another size")
        return self.traced(images)


def write(model: Exportable, description: str, path: Path) -> None:
    """Writes a trace, which takes batches of any size."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        inputs = model.samples(2)
        script: Any = torch.jit.trace(model.module, inputs, check_trace=False)
        if model.inputs == ("images",):
            script = torch.jit.script(_Strict(script, *inputs[0].shape[2:]).eval())
        torch.jit.save(script, path, _extra_files={f"{KEY}.json": description})


def load(path: Path, model: Exportable) -> Run:
    """Loads a file by torch alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return of_module(torch.jit.load(path), model)
