"""Models of Keras: equal to Keras's own with the same weights, from its files and to them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from classification.model.build import build_model
from classification.model.sections import HeadConfig, KerasModel
from engine.config.training import FinetuneConfig
from engine.datasets.dataset import preprocessing_of
from engine.datasets.sections import FolderData
from engine.errors import UserError
from engine.keras_models.build import ARCHITECTURES, _PooledConv, build_keras
from engine.keras_models.weights import read_layers, to_layers, to_state
from engine.model.freezing import Freezing
from engine.model.pretrained import read_weights
from tests.engine.keras_models.random_keras import NEAR, differences, ours, pictures, prepared, random_keras

NAMES = [pytest.param(name, marks=[] if "Mobile" in name else pytest.mark.full) for name in ARCHITECTURES]


def scattered(model: nn.Module) -> nn.Module:
    """A model whose statistics and biases are those of none that was just made."""
    random = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low in ((module.running_mean, -0.1), (module.running_var, 0.5), (module.bias, -0.1)):
                assert values is not None
                values.data.uniform_(low, low + 0.6, generator=random)
    return model.eval()


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_arrays_of_layers_are_the_state_dict_in_another_order(name: str) -> None:
    model = scattered(build_keras(name, 7, 0.0, None))
    layers = to_layers(name, model)
    assert len(layers) == len(ARCHITECTURES[name].layers(model)), "each layer has a name of its own"
    state = to_state(name, build_keras(name, 7, 0.0, None), layers, "a.h5")
    own = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    for key, value in own.items():
        torch.testing.assert_close(state[key], value, rtol=0, atol=0)
    layers = {layer: arrays for layer, arrays in layers.items() if layer not in ("predictions", "logits")}
    assert set(to_state(name, build_keras(name, 3, 0.0, None), layers, "a.h5")) == {*model.state_dict()}, (
        "with a new head"
    )
    first = next(iter(layers))
    with pytest.raises(UserError, match=rf"a\.h5 is no {name}: it lacks the layers {first}"):
        to_state(name, model, {layer: arrays for layer, arrays in layers.items() if layer != first}, "a.h5")


def test_batch_norm_is_as_keras_has_it() -> None:
    for name, (epsilon, momentum) in {
        "keras/EfficientNetB0": (1e-3, 0.01),
        "keras/MobileNetV3Large": (1e-3, 0.001),
        "keras/InceptionV3": (1e-3, 0.01),
        "keras/ResNet50": (1.001e-5, 0.01),
    }.items():
        layers = [m for m in build_keras(name, 2, 0.0, None).modules() if isinstance(m, nn.BatchNorm2d)]
        assert {(layer.eps, layer.momentum) for layer in layers} == {(epsilon, momentum)}
        assert all((layer.weight is None) == (name == "keras/InceptionV3") for layer in layers)


def test_an_average_at_the_edge_counts_what_is_there() -> None:
    layer = nn.Module()
    layer.conv, layer.bn = nn.Identity(), nn.Identity()
    for size in ((5, 4), (1, 2), (1, 1)):
        x = torch.randn(2, 3, *size)
        wanted = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        torch.testing.assert_close(_PooledConv(layer)(F.avg_pool2d(x, 3, 1, 1)), wanted)


def test_preprocessing_is_keras_s() -> None:
    data = FolderData(source="folder", root=Path("/nowhere"), image_size=96)
    means = {name: preprocessing_of(data, name) for name in ARCHITECTURES}
    assert means["keras/InceptionV3"].mean == (0.5, 0.5, 0.5) and means["keras/InceptionV3"].std == (0.5, 0.5, 0.5)
    assert [round(255 * mean, 3) for mean in means["keras/ResNet50"].mean] == [123.68, 116.779, 103.939]
    assert means["keras/ResNet50"].std[0] * 255 == pytest.approx(1)
    assert means["keras/EfficientNetB0"].mean == (0.485, 0.456, 0.406)


def test_unfreezing_moves_what_it_should_on_inception() -> None:
    """Frozen stages keep weights and statistics to the last bit; from the step on that frees them, both move."""
    torch.manual_seed(0)
    model = build_model(KerasModel(name="keras/InceptionV3"), FinetuneConfig(), 3, (75, 75))
    config = FinetuneConfig.model_validate({"unfreeze": {0: ["head"], 1: ["all"]}, "freeze_batchnorm": "frozen_stages"})
    freezing = Freezing(model, config, steps_per_epoch=1)
    images, labels = torch.randn(4, 3, 75, 75), torch.tensor([0, 1, 2, 0])

    def step() -> set[str]:
        before = {key: value.clone() for key, value in model.state_dict().items()}
        freezing.train_mode()
        model.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
        return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}

    assert step() == {"fc.weight", "fc.bias"}
    assert freezing.advance(1)
    moved = step()
    assert moved == set(model.state_dict())
    assert len([key for key in moved if key.endswith("running_mean")]) == 94


def test_files_of_keras_are_for_its_models(tmp_path: Path) -> None:
    (tmp_path / "a.keras").write_bytes(b"")
    with pytest.raises(UserError, match=r"a\.keras is a file of Keras's, which models named keras/NAME take"):
        read_weights(tmp_path / "a.keras")
    with pytest.raises(UserError, match=r"model\.drop_path: keras/InceptionV3 has no stochastic depth"):
        build_model(KerasModel(name="keras/InceptionV3", drop_path=0.1), FinetuneConfig(), 3, (75, 75))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ending", ["keras", pytest.param("weights.h5", marks=pytest.mark.full), "h5"])
def test_keras_own_files_give_keras_own_logits(name: str, ending: str, tmp_path: Path) -> None:
    """Weights that Keras has saved, with a classifier or, nested in a model of its own, without."""
    theirs = random_keras(name, 5, 96, 80)
    file = tmp_path / f"model.{ending}"
    theirs.save_weights(file) if ending == "weights.h5" else theirs.save(file)
    model = build_model(KerasModel(name=name), FinetuneConfig(weights=file), 5, (96, 80)).eval()  # type: ignore[arg-type]
    given = pictures(3, 96, 80, seed=1)
    wanted = theirs(prepared(name, given), training=False).detach().numpy()
    assert differences(ours(model, name, given), wanted).max() <= NEAR
    assert differences(wanted[[1, 2, 0]], wanted).min() > 1e-3, "pictures are told apart"
    fresh = build_model(KerasModel(name=name), FinetuneConfig(weights=file), 3, (96, 80))  # type: ignore[arg-type]
    assert torch.equal(next(fresh.parameters()), next(model.parameters()))
    headed = KerasModel(name=name, head=HeadConfig(hidden=4))
    build_model(headed, FinetuneConfig(weights=file), 3, (96, 80))  # type: ignore[arg-type]
    assert read_layers(file)
