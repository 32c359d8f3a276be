"""A .keras file of one of Keras's models, written and read by Keras itself on its torch backend."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import UserError
from engine.exported.exportable import Exportable, Run
from engine.keras_models.build import ARCHITECTURES
from engine.keras_models.weights import to_layers
from engine.model.described import KEY


def _keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    return keras


def write(model: Exportable, description: str, path: Path) -> None:
    """Writes a model that maps pictures (B, height, width, 3), red, green and blue in 0 to 255, to logits.

    Raises:
        UserError: it is none of Keras's.
    """
    if model.model_name not in ARCHITECTURES:
        names = ", ".join(ARCHITECTURES)
        raise UserError(f"--format keras: is for {names}, not for {model.model_name}; use onnx or tflite")
    keras, told = _keras(), json.loads(description)
    layers = to_layers(model.model_name, model.network)
    mean, std = (np.array(told["normalization"][key]) for key in ("mean", "std"))
    name = model.model_name.removeprefix("keras/")
    pictures = keras.Input((*told["input"]["shape"][2:], 3), name="images")
    bgr = ARCHITECTURES[model.model_name].bgr
    options: dict[str, Any] = {"include_preprocessing": False} if name.startswith("MobileNet") else {}
    values = pictures
    if name.startswith("EfficientNet"):  # which has a layer for it within
        layers["normalization"] = [mean, std**2, np.array(0)]
    else:
        values = values[..., ::-1] if bgr else values
        order = slice(None, None, -1 if bgr else 1)
        scale, offset = (1 / (255 * std))[order].tolist(), (-mean / std)[order].tolist()
        values = keras.layers.Rescaling(scale, offset)(values)
    network = getattr(keras.applications, name)(
        weights=None, input_tensor=values, classes=len(told["classes"]), classifier_activation=None, **options
    )
    numbers: dict[str, int] = {}
    for layer in sorted(network.layers, key=lambda layer: [int(d) for d in layer.name.split("_") if d.isdigit()]):
        kind = layer.name.rstrip("_0123456789")
        ours = layer.name
        if kind in ("conv2d", "batch_normalization", "normalization"):  # numbered over all models of a process
            number = numbers[kind] = numbers.get(kind, -1) + 1
            ours = f"{kind}_{number}" if number else kind
        if not layer.weights:
            continue
        arrays = list(layers[ours])
        if len(arrays) < len(layer.weights):  # a bias that is folded into the batch norm behind it
            arrays.append(np.zeros(layer.weights[len(arrays)].shape, np.float32))
        if layer.name == "logits":
            arrays[0] = arrays[0][None, None]
        layer.set_weights(arrays)
    whole = path.with_name("model.keras")
    network.save(whole)
    if whole != path:
        whole.rename(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{KEY}.json", description)


def load(path: Path, model: Exportable) -> Run:
    """Loads a file by Keras alone."""
    network = _keras().models.load_model(path, compile=False)

    def run(inputs: Any) -> dict[str, Any]:
        pictures = np.ascontiguousarray(inputs[0].transpose(0, 2, 3, 1)).astype(np.float32)
        logits = network(pictures, training=False).detach().cpu().numpy()
        if model.description["multi_label"]:
            return {"logits": logits, "probabilities": 1 / (1 + np.exp(-logits))}
        odds = np.exp(logits - logits.max(1, keepdims=True))
        return {"logits": logits, "probabilities": odds / odds.sum(1, keepdims=True)}

    return run
