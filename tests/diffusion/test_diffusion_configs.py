"""The recipes of configs/diffusion: each says what it is for, and is as published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffusion.config import DiffusionConfig
from diffusion.spec import SPEC
from engine.commands.build import build_trainer
from engine.config.load import load_config
from tests.diffusion.test_generator import ALONE
from tests.engine.datasets.test_torchvision_sets import write_idx

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs" / "diffusion").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_loads_and_explains_itself(path: Path) -> None:
    config = load_config(DiffusionConfig, path)
    assert config.experiment.name == path.stem
    head = path.read_text().split("\nexperiment:")[0]
    assert all(f"# {word}" in head for word in ("Run:", "Hardware:", "Expect:"))
    assert "$schema=../schema/diffusion.json" in head


LARGE = {"swin_unet_cifar10", "swin_unet_cifar10_flow", "images"}


@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=[pytest.mark.full] if path.stem in LARGE else []) for path in CONFIGS],
    ids=lambda path: path.stem,
)  # fmt: skip
def test_it_trains(path: Path) -> None:
    """A step on digits of the recipe's size, so that no data set is needed."""
    data = load_config(DiffusionConfig, path).data
    digits = f"data={{source: digits, image_size: {data.image_size}, channels: {data.channels}, workers: 0}}"
    small = ["training.global_batch_size=2", "training.accumulation=1", "diffusion.sampling.steps=1"]
    config = load_config(DiffusionConfig, path, [digits, *small, "distributed.device=cpu", "training.ema=null"])
    trainer = build_trainer(SPEC, config, ALONE)
    trainer.train_step(trainer.batches())
    trainer.settle()
    assert trainer.state.updates == 1 and trainer.state.window.means()["loss"] > 0


@pytest.mark.parametrize("name", ["swin_unet_mnist", "swin_unet_mnist_v"])
def test_mnist_is_learnt_from_its_files(name: str, tmp_path: Path) -> None:
    """An epoch of generated files in its format."""
    for part, count in (("train", 5), ("t10k", 3)):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), np.uint8)
        write_idx(tmp_path / "MNIST" / "raw" / f"{part}-images-idx3-ubyte", images)
        write_idx(tmp_path / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8))
    small = ["training.global_batch_size=4", "training.accumulation=1", "data.workers=0", "distributed.device=cpu"]
    path = CONFIGS[0].with_name(f"{name}.yaml")
    trainer = build_trainer(SPEC, load_config(DiffusionConfig, path, [f"data.root={tmp_path}", *small]), ALONE)
    trainer.train_step(trainer.batches())
    trainer.settle()
    assert trainer.epoch == 1 and len(trainer.task.metadata()["classes"]) == 10
    assert trainer.task.metadata()["images"] == {"train": 5, "val": 3}


def test_the_published_settings() -> None:
    mnist, cifar = (
        load_config(DiffusionConfig, CONFIGS[0].with_name(f"swin_unet_{name}.yaml")) for name in ("mnist", "cifar10")
    )
    for config, steps in ((mnist, 500), (cifar, 300)):
        schedule, training = config.diffusion.schedule, config.training
        assert (schedule.name, schedule.model_dump()["steps"], config.diffusion.objective) == ("cosine", steps, "eps")
        assert (config.optimizer.name, config.optimizer.lr) == ("adamw", 1e-4)
        assert (training.epochs, training.global_batch_size) == (75, 128)
