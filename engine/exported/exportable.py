"""A trained model as other runtimes take it: one network from plain inputs to plain outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.images.preprocessing import Preprocessing

Runtime = Literal["torch", "onnx", "plain"]
"""What the graph may hold: torchvision's operations, those that ONNX has, or nothing but the plainest."""
Outputs = Mapping[str, NDArray[Any]]
Run = Callable[[Sequence[NDArray[Any]]], Outputs]
"""An exported model in its own runtime: from its inputs, in their order, to outputs by name."""


class Differs(Exception):
    """An exported model is not the one that was trained: a defect, and no mistake of the user's."""


@dataclass(frozen=True)
class Exportable:
    """What an exporter writes."""

    kind: str
    """What the model says: classes, boxes, or image."""
    module: nn.Module
    """From tensors to a tuple of tensors; normalises within, in float32 and evaluation mode, on the CPU."""
    reference: nn.Module
    """The same as the suite itself computes it, where that is another way."""
    network: nn.Module
    """The bare model in it, whose state dict has the checkpoint's names."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    samples: Callable[[int], tuple[Tensor, ...]]
    """Inputs of a batch of so many: of val where its images are to be had, else drawn."""
    description: dict[str, Any]
    """What one has to know to use it, as plain values: classes, preprocessing, thresholds."""
    model_name: str
    """`model.name`, or the detector's backbone."""
    translations: Callable[[], Mapping[Any, Any]] = dict
    """Operations of our own as ONNX has them, for ``torch.onnx.export``."""
    accuracy: Callable[[Run], dict[str, float]] | None = None
    """Measures an exported model on val, which has to be there; None: not known how."""
    compare: Callable[[tuple[Tensor, ...], Outputs, float], float] | None = None
    """Compares outputs for these inputs with what may be answered, where more than one answer is right: returns the
    largest difference, and raises :class:`Differs` if it is above the tolerance. None: they have to equal ours."""


def image_input(preprocessing: Preprocessing) -> dict[str, Any]:
    """Describes what has to be done to an image file, as plain values: the same for every task and format."""
    values = asdict(preprocessing)
    mean, std = values.pop("mean"), values.pop("std")
    return {
        "input": {
            "name": "images",
            "dtype": "uint8",
            "shape": ["batch", 3, preprocessing.height, preprocessing.width],
            "colours": "RGB, 0 to 255; turned upright as EXIF says, transparent parts on white",
        },
        "preprocessing": {**values, "fill": list(preprocessing.fill)},
        "normalization": {"inside": True, "mean": list(mean), "std": list(std)},
    }


def preprocessing_of(description: Mapping[str, Any]) -> Preprocessing:
    """Returns the preprocessing that :func:`image_input` has described."""
    normalization = description["normalization"]
    values: dict[str, Any] = {key: value for key, value in description["preprocessing"].items() if key != "fill"}
    values |= {key: tuple(normalization[key]) for key in ("mean", "std")}
    if not isinstance(values["pad_fill"], str):
        values["pad_fill"] = tuple(values["pad_fill"])
    return Preprocessing(**values)


def drawn_images(count: int, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Draws images (count, 3, height, width) in which something is to be seen: coarse noise, one of them blank."""
    random = np.random.default_rng(0)
    height, width = preprocessing.size
    coarse = random.integers(0, 256, (count, 3, -(-height // 8), -(-width // 8)), dtype=np.uint8)
    images = coarse.repeat(8, axis=2).repeat(8, axis=3)[:, :, :height, :width].copy()
    images[1::4] = 127
    return images
