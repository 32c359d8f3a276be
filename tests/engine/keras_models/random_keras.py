"""Models of keras.applications with weights and statistics that none has which was just made."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest


def import_keras() -> Any:
    """Keras on torch; skips the test where it is not installed."""
    pytest.importorskip("h5py", reason="needs h5py: pip install -e '.[keras]'")
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras", reason="needs Keras: pip install -e '.[keras]'")


def random_keras(name: str, classes: int, height: int, width: int, shift: float = 0.05) -> Any:
    """``keras/NAME`` by Keras, from pictures (B, height, width, 3) to logits; MobileNet without its preprocessing.

    To each weight, bias and statistic a part of ``shift`` is added.
    """
    keras = import_keras()
    short = name.removeprefix("keras/")
    options: dict[str, Any] = {"include_preprocessing": False} if short.startswith("Mobile") else {}
    options |= {"weights": None, "classes": classes, "classifier_activation": None}
    model = getattr(keras.applications, short)(input_shape=(height, width, 3), **options)
    random = np.random.default_rng(0)
    for layer in model.layers:
        if not layer.name.startswith("normalization"):
            layer.set_weights([w + random.uniform(0, shift, w.shape).astype(np.float32) for w in layer.get_weights()])
    return model
