"""Models of keras.applications whose logits follow from what is to be seen in a picture, and such pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from engine.datasets.dataset import preprocessing_of
from engine.datasets.sections import FolderData
from engine.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD

MODULES = {"EfficientNetB0": "efficientnet", "MobileNetV3Large": "mobilenet_v3"}
MODULES |= {"InceptionV3": "inception_v3", "ResNet50": "resnet50"}

NEAR = 5e-4
"""What roundings may change of logits of random weights, which even them out less than trained ones."""


def import_keras() -> Any:
    """Keras on torch; skips the test where it is not installed."""
    pytest.importorskip("h5py", reason="needs h5py: pip install -e '.[keras]'")
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras", reason="needs Keras: pip install -e '.[keras]'")


def pictures(count: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Patches of colours around one of each picture's own, (count, height, width, 3)."""
    random = np.random.default_rng(seed)
    coarse = (
        random.integers(0, 128, (count, -(-height // 16), -(-width // 16), 3)).repeat(16, axis=1).repeat(16, axis=2)
    )
    return (coarse[:, :height, :width] + random.integers(0, 128, (count, 1, 1, 3))).astype(np.uint8)


def random_keras(name: str, classes: int, height: int, width: int) -> Any:
    """``keras/NAME`` by Keras, to logits; MobileNet without its preprocessing.

    Biases and scales are not those of a new model. Batch norm has the statistics of some pictures, so that what is to
    be seen in others is neither lost on the way to the logits nor becomes so large that roundings are.
    """
    keras, short = import_keras(), name.removeprefix("keras/")
    options: dict[str, Any] = {"include_preprocessing": False} if short.startswith("Mobile") else {}
    options |= {"weights": None, "classes": classes, "classifier_activation": None}
    model = getattr(keras.applications, short)(input_shape=(height, width, 3), **options)
    random = np.random.default_rng(0)
    for layer in model.layers:
        arrays = [a + random.uniform(0, 0.1, a.shape) * (a.ndim == 1) for a in layer.get_weights()]
        if layer.name.startswith("normalization"):  # as an export of ours has it
            arrays = [np.array(IMAGENET_MEAN), np.array(IMAGENET_STD) ** 2, np.array(0)]
        layer.set_weights(arrays)
    kept = [(layer, key) for layer in model.layers for key in ("momentum", "rate") if hasattr(layer, key)]
    values = [getattr(layer, key) for layer, key in kept]
    for layer, key in kept:
        setattr(layer, key, 0.0)
    model(prepared(name, pictures(8, height, width)), training=True)
    for (layer, key), value in zip(kept, values, strict=True):
        setattr(layer, key, value)
    return model


def prepared(name: str, given: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pictures as Keras's own function prepares them for ``keras/NAME``."""
    module = getattr(import_keras().applications, MODULES[name.removeprefix("keras/")])
    values: NDArray[np.float32] = module.preprocess_input(given.astype(np.float32))
    return values / 127.5 - 1 if "Mobile" in name else values  # which a layer does that the models here lack


def ours(model: nn.Module, name: str, given: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits of our model, with the preprocessing that `auto` stands for."""
    auto = preprocessing_of(FolderData(source="folder", root=Path("/nowhere"), image_size=96), name)
    means, deviations = (torch.tensor(values).view(3, 1, 1) for values in (auto.mean, auto.std))
    with torch.no_grad():
        values = torch.from_numpy(given.transpose(0, 3, 1, 2).copy()).float() / 255
        found: NDArray[np.float32] = model((values - means) / deviations).numpy()
        return found


def differences(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest difference of each picture's logits, relative to its largest logit, or to 1."""
    relative: NDArray[np.float32] = np.abs(found - wanted).max(axis=1) / np.maximum(1, np.abs(wanted).max(axis=1))
    return relative
