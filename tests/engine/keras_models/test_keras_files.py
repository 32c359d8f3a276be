"""Files that Keras 2 and 3 have written, or nearly: what is read of them, and what is said of those that do not fit."""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from classification.model.build import build_model
from classification.model.sections import KerasModel
from engine.config.training import FinetuneConfig
from engine.errors import UserError
from engine.keras_models.build import build_keras
from engine.keras_models.weights import Layers, to_layers
from engine.model.pretrained import weights_file
from tests.engine.keras_models.test_keras_models import scattered

MOBILE, B0 = "keras/MobileNetV3Large", "keras/EfficientNetB0"
PARTS = ("squeeze_excite", "expand", "depthwise", "project")


@pytest.fixture(scope="module")
def trained() -> dict[str, tuple[nn.Module, Layers]]:
    """Models with their layers as Keras has them."""
    models = {name: scattered(build_keras(name, 3, 0.0, None)) for name in (MOBILE, B0)}
    return {name: (model, to_layers(name, model)) for name, model in models.items()}


def write(path: Path, groups: Mapping[str, Mapping[str, Sequence[Any]]]) -> Path:
    """A file as Keras 2 writes it: a group for each layer of a model, with the arrays of layers."""
    h5py = pytest.importorskip("h5py", reason="needs h5py: pip install -e '.[keras]'")
    with h5py.File(path, "w") as file:
        for group, layers in groups.items():
            names = []
            for layer, arrays in layers.items():
                for number, array in enumerate(arrays):
                    names.append(f"{layer}/v{number}:0".encode())
                    file.create_dataset(f"{group}/{layer}/v{number}:0", data=array)
            file[group].attrs["weight_names"] = np.array(names)
    return path


def build(name: str, file: Path, classes: Sequence[str] | None = None) -> nn.Module:
    return build_model(KerasModel(name=name), FinetuneConfig(weights=file), 3, (64, 64), classes)  # type: ignore[arg-type]


def of_keras_2(layer: str) -> str:
    """MobileNetV3's layers as tf.keras called them: expanded_conv_3/squeeze_excite/Conv_1, Conv_1/BatchNorm, Logits."""
    for part in PARTS:
        layer = layer.replace(f"_{part}", f"/{part}", 1)
    layer = layer.replace("squeeze_excite_conv", "squeeze_excite/Conv")
    layer = layer.removesuffix("_bn") + "/BatchNorm" * layer.endswith("_bn")
    return layer if layer.startswith("expanded") else layer[0].upper() + layer[1:]


def test_published_names_are_read_and_an_optimizers_arrays_are_not(tmp_path: Path, trained: Any) -> None:
    model, layers = trained[MOBILE]
    renamed = {of_keras_2(layer): arrays for layer, arrays in layers.items()}
    assert {"Conv/BatchNorm", "expanded_conv/depthwise", "expanded_conv_3/squeeze_excite/Conv_1", "Logits"} <= {
        *renamed
    }
    momenta = {f"Adam/m/{layer}": [np.ones(3), np.ones(3)] for layer in renamed}
    groups = {"model_weights/MobilenetV3large": renamed, "optimizer_weights": momenta}
    found = build(MOBILE, write(tmp_path / "published.hdf5", groups))
    for key, value in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(found.state_dict()[key], value), key


def test_a_larger_model_and_two_networks_are_refused(tmp_path: Path, trained: Any) -> None:
    _, layers = trained[B0]
    larger = {**layers, "block1b_dwconv": [np.zeros((3, 3, 16, 1), np.float32)]}
    with pytest.raises(UserError, match=r"b1\.h5 is no keras/EfficientNetB0, but a larger model: .* block1b_dwconv"):
        build(B0, write(tmp_path / "b1.h5", {"model_weights/efficientnetb1": larger}))
    two = {"model_weights/one": layers, "model_weights/two": layers}
    with pytest.raises(UserError, match=r"two\.h5 has the layer \w+ twice: it holds two networks; save the one"):
        build(B0, write(tmp_path / "two.h5", two))
    with pytest.raises(UserError, match=r"lacks the layers conv, .*; its layers are named as those of keras/Efficient"):
        build(MOBILE, write(tmp_path / "b0.h5", {"model_weights/efficientnetb0": layers}))


def test_a_classifier_that_is_not_there_or_says_something_else_starts_anew(
    tmp_path: Path, trained: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model, layers = trained[B0]
    body = {layer: arrays for layer, arrays in layers.items() if layer != "predictions"}
    with caplog.at_level(logging.INFO):
        found = build(B0, write(tmp_path / "body.h5", {"model_weights/efficientnetb0": body}))
    assert "body.h5 has no layer predictions: the classifier starts anew" in caplog.text
    head = found.state_dict()["classifier.weight"]
    assert 0 < head.std() < 0.02
    weights = write(tmp_path / "whole.h5", {"model_weights/efficientnetb0": layers})
    exported = tmp_path / "exported.keras"
    with zipfile.ZipFile(exported, "w") as archive:
        archive.write(weights, "model.weights.h5")
        archive.writestr("swin_hpc.json", json.dumps({"classes": ["a", "b", "c"]}))
    same = build(B0, exported, ["a", "b", "c"]).state_dict()["classifier.weight"]
    assert torch.equal(same, model.state_dict()["classifier.weight"])
    with caplog.at_level(logging.INFO):
        other = build(B0, exported, ["a", "c", "b"]).state_dict()["classifier.weight"]
    assert "exported.keras was trained on other classes, or in another order" in caplog.text and other.std() < 0.02


def test_a_normalization_of_ones_own_is_told(tmp_path: Path, trained: Any, caplog: pytest.LogCaptureFixture) -> None:
    _, layers = trained[B0]
    std = np.array([0.229, 0.224, 0.225])
    for mean, variance, told in (
        ([0.485, 0.456, 0.406], std, False),  # as published, with a layer that divides once more
        ([0.485, 0.456, 0.406], std**2, False),  # as exported
        (np.zeros(3), np.ones(3), True),
    ):
        normalization = {"normalization_4": [np.array(mean), np.array(variance), np.array(0)]}
        caplog.clear()
        build(B0, write(tmp_path / "a.h5", {"model_weights/b0": {**layers, **normalization}}))
        assert ("want data.mean=[0.0, 0.0, 0.0] and data.std=[1.0, 1.0, 1.0]" in caplog.text) == told
        assert ("the layer normalization" in caplog.text) == told


def test_a_saved_model_and_images_that_are_too_small_are_refused(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(UserError, match=r"is a SavedModel of TensorFlow's, .* save it as a \.keras or \.h5 file"):
        weights_file(tmp_path)
    with pytest.raises(UserError, match=r"data\.image_size: keras/InceptionV3 needs at least 75 pixels a side, not 64"):
        build_model(KerasModel(name="keras/InceptionV3"), FinetuneConfig(), 3, (96, 64))
