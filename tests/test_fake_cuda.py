"""Every shipped configuration on a CUDA device that is none: tensors have a place, a type and a shape, but no values.

What would fail or wait on a GPU fails here: tensors of two devices in one operation, values that the host reads,
results whose size depends on values, and tensors that are made on the host in the middle of a step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._pytree import tree_leaves

from classification.config import ClassificationConfig
from classification.task import ClassificationTask
from detection.config import DetectionConfig
from detection.task import DetectionTask
from engine.config.load import load_config
from engine.config.training import FinetuneConfig
from engine.data.batch_plan import Draw
from engine.devices.kinds import DEVICES
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.model.wrap import prepare_model
from tests.classification.small import write_multilabel_data
from tests.fake_cuda import DEVICE, HostTensors, autocast, replaced, run_apart

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FILES = sorted(path for task in ("classification", "detection") for path in (CONFIGS / task).rglob("*.yaml"))
QUICK = (
    "classification/quickstart",
    "classification/multi_label",
    "classification/resnet50_cifar10",
    "classification/long_tail",
    "detection/quickstart",
    "detection/swin_a_pan",
    "detection/resnet50_b_dense_fpn",
)
"""One of each kind; the others, which take longer, are for the full run."""
RANKS = Ranks(Layout(), DEVICE)
BUILDERS = ("classification.task.build_alike", "detection.detector.build_alike")
TASKS: dict[type, Any] = {ClassificationConfig: ClassificationTask, DetectionConfig: DetectionTask}
SHAPES = {
    "source": "shapes",
    "classes": ["circle", "square"],
    "train_images": 4,
    "val_images": 2,
    "image_size": [64, 64],
    "workers": 0,
}


def cases() -> Iterator[Any]:
    for path in FILES:
        name = str(path.relative_to(CONFIGS).with_suffix(""))
        if "/base/" not in name:
            yield pytest.param(path, id=name, marks=() if name in QUICK else pytest.mark.full)


def built_for_real(fake: FakeTensorMode, patch: pytest.MonkeyPatch) -> AbstractContextManager[Any]:
    """Where models are built with values, which some read while they begin, and lose them before they are moved."""

    def build(make: Callable[[FinetuneConfig], nn.Module], finetune: FinetuneConfig, ranks: Ranks) -> nn.Module:
        with unset_fake_temporarily():
            return replaced(make(finetune), fake.from_tensor)

    def to(model: nn.Module, *args: Any, **options: Any) -> nn.Module:
        device, _, _, memory_format = torch._C._nn._parse_to(*args, **options)

        def moved(tensor: Tensor) -> Tensor:
            if memory_format is not None and tensor.ndim == 4:
                return tensor.to(device=device, memory_format=memory_format)
            return tensor.to(device=device)

        return replaced(model, moved)

    for place in BUILDERS:
        patch.setattr(place, build)
    return mock.patch.object(nn.Module, "to", to)  # which cannot exchange the contents of such tensors


def configured(path: Path, folder: Path) -> Any:
    """The configuration with data that are there, of the same form and size."""
    schema = ClassificationConfig if "classification" in path.parts else DetectionConfig
    start = ["finetune.weights=null", "training.precision=fp32"]
    found = load_config(schema, path, start)
    data: dict[str, Any] = SHAPES if schema is DetectionConfig else {"source": "digits", "workers": 0}
    columns = getattr(found.data, "label_columns", [])
    if len(columns) > 1 or getattr(found.data, "label_separator", None) is not None:
        data = write_multilabel_data(folder / "images")
    size = found.data.model_dump(mode="json")["image_size"]
    return load_config(schema, path, [*start, f"data={json.dumps({**data, 'image_size': size})}"])


def batch_of(task: Any) -> dict[str, Tensor]:
    """Four training samples, on the CPU, with values."""
    batch: dict[str, Tensor] = task.workers.collate([task.train_data[Draw(index, 0, index)] for index in range(4)])
    return batch


@pytest.mark.parametrize("path", list(cases()))
def test_gradients_are_computed_without_the_host(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On torch's device without values: the autograd engine asks a CUDA device's driver before it begins."""
    monkeypatch.setitem(DEVICES, "meta", DEVICES["cuda"])
    ranks, config = Ranks(Layout(), torch.device("meta")), configured(path, tmp_path)
    task = TASKS[type(config)](config, ranks)
    model = prepare_model(task.model, config.training, config.distributed, ranks).train()
    there = {name: tensor.to(ranks.device) for name, tensor in batch_of(task).items()}
    with HostTensors() as host:
        results = task.training_step(model, there)
        results["loss"].backward()
    assert not host.found
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients and {tensor.device for tensor in (*gradients, *results.values())} == {ranks.device}


@pytest.mark.parametrize("path", list(cases()))
def test_steps_and_answers_stay_on_the_device(path: Path, tmp_path: Path) -> None:
    run_apart(on_fake_cuda, tmp_path, path, tmp_path)


def on_fake_cuda(path: Path, folder: Path) -> None:
    """A training step in each precision, and what is said of the same images."""
    with pytest.MonkeyPatch.context() as patch:
        check_on_fake_cuda(configured(path, folder), patch)


def check_on_fake_cuda(config: Any, patch: pytest.MonkeyPatch) -> None:
    fake = FakeTensorMode()  # refuses whatever needs a value
    patch.setattr("detection.task.first_pass", lambda *_: [])  # which computes gradients
    with pytest.MonkeyPatch.context() as without_model:
        for place in BUILDERS:
            without_model.setattr(place, lambda *_: nn.Linear(1, 1))
        batch = batch_of(TASKS[type(config)](config, Ranks(Layout(), torch.device("cpu"))))
    with built_for_real(fake, patch), fake:
        task = TASKS[type(config)](config, RANKS)
        task.model = prepare_model(task.model, config.training, config.distributed, RANKS)
    for precision in ("fp32", "bf16", "fp16"):
        with fake:
            there = {name: fake.from_tensor(tensor).to(RANKS.device) for name, tensor in batch.items()}
            task.model.train()
            with autocast(precision):
                task.training_step(task.model, there)  # makes what is kept for images of this size
                with HostTensors() as host:
                    results = task.training_step(task.model, there)
            assert not host.found, host.found
            assert {value.device for value in results.values()} == {RANKS.device}
    with fake, torch.no_grad(), autocast("bf16"):
        task.model.eval()
        images = {name: fake.from_tensor(tensor) for name, tensor in batch.items()}
        if isinstance(task, ClassificationTask):
            judged = task._classifier.judged(task.model, images)
            assert {leaf.device for leaf in tree_leaves(judged)} == {RANKS.device}
        else:
            fake.shape_env = ShapeEnv()  # suppression finds any number of boxes, and the host waits for it
            found = task._detector.detect(task.model, images["image"])
            assert {found.boxes.device, found.scores.device, found.counts.device} == {RANKS.device}
