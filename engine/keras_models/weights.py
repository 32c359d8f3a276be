"""Weights of Keras's files as our state dicts, and the other way: by h5py alone."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.errors import UserError
from engine.keras_models.build import ARCHITECTURES

Layers = dict[str, list[NDArray[Any]]]
"""Arrays of each of Keras's layers, in its own order."""
ENDINGS = (".keras", ".h5", ".hdf5")
NUMBERED = re.compile(r"(conv2d|batch_normalization|normalization)(?:_(\d+))?")
OF_KERAS_2 = re.compile(r"(?:^|/)((?:expanded_conv(?:_\d+)?/\w+|Conv(?:_\d)?|Logits)(?:/\w+)?)$")
"""MobileNetV3's layers as Keras 2 called them, such as expanded_conv_1/expand/BatchNorm: its published weights do."""
OPTIMIZER = "optimizer_weights"


def is_keras_file(path: Path) -> bool:
    """Returns whether a file of weights is one of Keras's, by its name."""
    return path.suffix in ENDINGS


def read_layers(path: Path) -> Layers:
    """Reads the arrays of all layers, those of models within models too: of .keras, .weights.h5 and older .h5 files.

    Raises:
        UserError: h5py is missing, or the file is none of Keras's.
    """
    try:
        import h5py
    except ImportError:
        raise UserError(f"finetune.weights: {path} needs h5py: pip install -e '.[keras]'") from None
    found: Layers = {}
    origins: dict[str, str] = {}

    def add(layer: str, place: str, array: Any) -> None:
        if origins.setdefault(layer, place) != place:
            raise UserError(
                f"finetune.weights: {path} has the layer {layer} twice: it holds two networks; save the one that is "
                "meant (its get_layer(NAME).save(FILE))"
            )
        found.setdefault(layer, []).append(np.asarray(array))

    def visit(name: str, group: Any) -> None:
        if name.partition("/")[0] == OPTIMIZER:
            return
        if "weight_names" in group.attrs:  # as Keras 2 wrote it
            for text in group.attrs["weight_names"]:
                text = text.decode() if isinstance(text, bytes) else str(text)
                add(_layer_of(text), name, group[text])
        elif name.rpartition("/")[2] == "vars" and "name" in group.attrs and len(group):
            for key in sorted(group, key=int):
                add(str(group.attrs["name"]), name, group[key])

    try:
        content: Any = path
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                content = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(content, "r") as file:
            visit("", file)
            file.visititems(visit)
    except (OSError, KeyError, ValueError, IndexError, zipfile.BadZipFile) as error:
        raise UserError(f"finetune.weights: {path} cannot be read as weights of Keras: {error}") from None
    if not found:
        raise UserError(f"finetune.weights: {path} names no layers of Keras; save it again with Keras 3.15 or later")
    return _renumbered(found)


def _layer_of(weight: str) -> str:
    """Returns the layer in a weight's path, such as stem_conv/kernel:0, by the name that Keras 3 has for it."""
    path = weight.rpartition("/")[0]
    if match := OF_KERAS_2.search(path):
        return match[1].replace("/BatchNorm", "_bn").replace("/", "_").lower()
    return path.split("/")[-1]


def _renumbered(layers: Layers) -> Layers:
    """Counts numbered layers from 0: a model that was built after others begins with a later number."""
    numbers: dict[str, list[tuple[int, str]]] = {}
    for name in layers:
        if match := NUMBERED.fullmatch(name):
            numbers.setdefault(match[1], []).append((int(match[2] or 0), name))
    renamed = {
        name: f"{kind}_{place}" if place else kind
        for kind, found in numbers.items()
        for place, (_, name) in enumerate(sorted(found))
    }
    return {renamed.get(name, name): arrays for name, arrays in layers.items()}


def to_state(
    name: str, model: nn.Module, layers: Mapping[str, Sequence[NDArray[Any]]], source: str
) -> dict[str, Tensor]:
    """Returns the state dict of a model whose layers have these arrays; a classifier that they lack is its own.

    Args:
        source: the file's name, for messages.

    Raises:
        UserError: other layers are missing, have other arrays, or are those of a larger model.
    """
    architecture, state = ARCHITECTURES[name], dict(model.state_dict())
    classifier = next(reversed([path for path, module in model.named_modules() if isinstance(module, nn.Linear)]))
    named = architecture.layers(model)
    if missing := [layer for path, layer in named.items() if layer not in layers and path != classifier]:
        raise UserError(
            f"finetune.weights: {source} is no {name}: it lacks the layers {_some(missing)}{_likely(name, layers)}"
        )
    known = {*named.values()}
    if surplus := [layer for layer in layers if re.fullmatch(architecture.family, layer) and layer not in known]:
        raise UserError(f"finetune.weights: {source} is no {name}, but a larger model: it also has {_some(surplus)}")
    biases: dict[str, Tensor] = {}
    for path, layer in named.items():
        arrays = [torch.from_numpy(np.array(array, np.float32)) for array in layers.get(layer, ())]
        module = model.get_submodule(path)
        if not arrays:
            continue
        if isinstance(module, nn.BatchNorm2d):
            keys = ("weight", "bias", "running_mean", "running_var")[0 if module.weight is not None else 1 :]
            if len(arrays) != len(keys):
                raise UserError(f"finetune.weights: {source} is no {name}: layer {layer} has {len(arrays)} arrays")
            state |= {f"{path}.{key}": array for key, array in zip(keys, arrays, strict=True)}
            continue
        kernel = arrays[0]
        if isinstance(module, nn.Conv2d):
            kernel = kernel.permute((2, 3, 0, 1) if module.groups > 1 else (3, 2, 0, 1))
            if architecture.bgr and module.in_channels == 3:
                kernel = kernel.flip(1)
        else:
            kernel = kernel.reshape(kernel.shape[-2:]).T
        state[f"{path}.weight"] = kernel.contiguous()
        if len(arrays) > 1 and f"{path}.bias" in state:
            state[f"{path}.bias"] = arrays[1]
        elif len(arrays) > 1:
            biases[layer] = arrays[1]
    by_layer = {layer: path for path, layer in named.items()}
    for layer, bias in biases.items():  # a batch norm follows, which takes the bias away again
        path = by_layer[re.sub("conv$", "bn", layer)]
        state[f"{path}.running_mean"] = state[f"{path}.running_mean"] - bias
    return state


def _some(layers: Sequence[str]) -> str:
    return ", ".join(layers[:4]) + (f" and {len(layers) - 4} more" if len(layers) > 4 else "")


def _likely(name: str, layers: Mapping[str, Any]) -> str:
    """Says which other model the names of layers are like, if they are like one's."""
    for other, architecture in ARCHITECTURES.items():
        alike = [layer for layer in layers if re.fullmatch(architecture.family, layer)]
        if other != name and len(alike) > len(layers) / 3:
            return f"; its layers are named as those of {other}"
    return ""


def to_layers(name: str, model: nn.Module) -> Layers:
    """Returns the arrays of each of Keras's layers, biases that ours has not left out: the inverse of :func:`to_state`.

    Raises:
        UserError: the model has other layers than Keras's, such as a head of its own.
    """
    architecture, state = ARCHITECTURES[name], model.state_dict()
    found: Layers = {}
    named = architecture.layers(model)
    own = {key.rpartition(".")[0] for key in state}
    if own != {*named}:
        raise UserError(f"--format keras: {name} has layers that Keras's has not: {', '.join(sorted(own - {*named}))}")
    for path, layer in named.items():
        module = model.get_submodule(path)
        if isinstance(module, nn.BatchNorm2d):
            keys = ("weight", "bias", "running_mean", "running_var")[0 if module.weight is not None else 1 :]
            found[layer] = [state[f"{path}.{key}"].numpy() for key in keys]
            continue
        kernel = state[f"{path}.weight"]
        if isinstance(module, nn.Conv2d):
            if architecture.bgr and module.in_channels == 3:
                kernel = kernel.flip(1)
            kernel = kernel.permute((2, 3, 0, 1) if module.groups > 1 else (2, 3, 1, 0))
        else:
            kernel = kernel.T
        bias = [state[f"{path}.bias"].numpy()] if f"{path}.bias" in state else []
        found[layer] = [kernel.contiguous().numpy(), *bias]
    return found
