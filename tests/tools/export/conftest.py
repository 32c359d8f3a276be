"""Tiny trained models, once for all tests of exports in a process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.commands.arguments import TrainArguments
from engine.commands.train import run_training
from engine.process.signals import StopRequest
from engine.task.spec import find_spec
from tests.classification import small as small_classification
from tests.detection import small as small_detection
from tests.diffusion import small as small_diffusion


def train(task: str, config: Path) -> Path:
    assert run_training(find_spec(task), TrainArguments(config, None, False, ()), StopRequest()) == 0
    return config.parent / "experiments" / "experiment_0001"


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Trains a small classifier with these changes to its configuration."""

    def trained(**changes: Any) -> Path:
        folder = tmp_path_factory.mktemp("classifier")
        return train("classification", small_classification.write_config(folder, **changes))

    return trained


@pytest.fixture(scope="session")
def swin(make: Callable[..., Path]) -> Path:
    """Our Swin on the digits, long enough to tell some of them apart."""
    return make(training={"steps": 90, "global_batch_size": 32}, optimizer={"lr": 3e-3}, schedule={"warmup_epochs": 0})


@pytest.fixture(scope="session")
def batch_normed(make: Callable[..., Path]) -> Path:
    """A convolutional model of timm, trained with channels last and in bf16, with a moving average.

    On images of 32 pixels: of a map of one pixel, torch 2.14's gradient of a strided convolution in bf16 on a CPU has
    random numbers in it.
    """
    training = {"steps": 12, "channels_last": True, "precision": "bf16", "ema": {"decay": 0.5}}
    data = {"source": "digits", "image_size": 32, "workers": 0}
    return make(model={"name": "timm/test_resnet"}, data=data, training=training, optimizer={"lr": 1e-4})


@pytest.fixture(scope="session")
def several_labels(make: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = small_classification.write_multilabel_data(tmp_path_factory.mktemp("colours") / "images")
    return make(data=data, loss={"name": "bce"}, training={"steps": 3})


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SSD on a convolutional backbone, trained with channels last and in bf16."""
    training = {"steps": 3, "channels_last": True, "precision": "bf16"}
    return train("detection", small_detection.write_config(tmp_path_factory.mktemp("detector"), training=training))


@pytest.fixture(scope="session")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = small_diffusion.write_config(tmp_path_factory.mktemp("denoiser"), training={"steps": 2})
    return train("diffusion", config)
