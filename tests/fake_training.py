"""A small network whose steps are watched on the CUDA device that is none, see :mod:`tests.fake_cuda`."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from engine.data.device_prefetch import DeviceBatches
from engine.data.loaders import MicroBatch
from engine.devices.kinds import DeviceNumbers
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.training.trainer import Trainer
from tests.engine.toy import ToyTask, toy_config, toy_trainer
from tests.fake_cuda import DEVICE, on_host, replaced

FUSED = ("adam", "adamw", "sgd", "momentum", "nesterov")
READ_THE_DEVICE = ("adamp", "cadamp", "sgdp", "csgdp", "novograd", "novogradc", "novogradw")
"""Optimizers of timm that wait for the device at each parameter."""


class Small(nn.Sequential):
    """Matrices, kernels in channels-last order, vectors and batch norm, in stages."""

    def __init__(self) -> None:
        super().__init__(
            nn.Unflatten(1, (6, 1, 1)), nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2)
        )

    def get_classifier(self) -> nn.Module:
        return self[4]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^1", "blocks": r"^(2)"}


class SmallTask(ToyTask):
    def training_step(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": (model(batch["x"]) - batch["y"]).square().mean()}


def small_task(fake: FakeTensorMode) -> SmallTask:
    model = replaced(Small(), fake.from_tensor)
    with fake:
        return SmallTask(replaced(model, moved))


def moved(tensor: Tensor) -> Tensor:
    if tensor.ndim == 4:
        return tensor.to(DEVICE, memory_format=torch.channels_last)
    return tensor.to(DEVICE)


def trainer_of(task: SmallTask, optimizer: str, precision: str = "fp32", ranks: Ranks | None = None) -> Trainer:
    sections: dict[str, Any] = {
        "training": {
            "epochs": 4,
            "precision": precision,
            "clip_grad_norm": 1.0,
            "ema": {"decay": 0.5},
            "accumulation": 2,
            "shard": "optimizer" if ranks else "none",
        },
        "optimizer": {"name": optimizer},
        "finetune": {"layer_decay": 0.7, "unfreeze": {0: "head", 0.5: "all"}},
    }
    return toy_trainer(task, toy_config(**sections), ranks or Ranks(Layout(), DEVICE))


def batches_of(trainer: Trainer) -> DeviceBatches:
    """What lies on the device already, from the trainer's step on."""
    layout = trainer.layout
    slots = (layout.slot(s, m, 0) for s in range(trainer.state.step, 12) for m in range(layout.accumulation))
    size = layout.slot_size
    samples = ({"x": torch.empty(size, 6, device=DEVICE), "y": torch.empty(size, 2, device=DEVICE)} for _ in range(99))
    return DeviceBatches((MicroBatch(*pair) for pair in zip(slots, samples, strict=False)), DEVICE)


@contextmanager
def gradients_by_hand(model: nn.Module) -> Iterator[None]:
    """In the place of the backward pass: an addition to each trained parameter's gradient."""

    def backward(loss: Tensor) -> None:
        assert loss.device == DEVICE and loss.ndim == 0
        for parameter in model.parameters():
            if parameter.requires_grad:
                fresh = torch.empty_like(parameter)
                parameter.grad = fresh if parameter.grad is None else parameter.grad + fresh

    with mock.patch.object(Tensor, "backward", backward):
        yield


def watched_steps(trainer: Trainer, name: str, count: int) -> None:
    """Makes steps in which the host may read the numbers of the last one, and what the optimizer cannot do without."""
    batches, skipped = batches_of(trainer), trainer.state.skipped
    for number in range(count):
        with (
            StepWatch(trainer.learner.optimizer) as watch,
            mock.patch.object(DeviceNumbers, "read", lambda numbers: watch.answer(numbers)),
        ):
            trainer.train_step(batches)
        assert watch.host == ["aten._to_copy.default"], watch.host  # the numbers, on their way to the host
        assert watch.answers == (number > 0)
        if name in FUSED:
            assert watch.fused and not watch.reads, watch.reads
            assert not watch.optimizer_reads and not watch.optimizer_host, watch.optimizer_reads + watch.optimizer_host
        else:
            assert len(watch.reads) == 1, watch.reads  # whether the step is to be made
            assert bool(watch.optimizer_reads) == (name in READ_THE_DEVICE), watch.optimizer_reads
    with mock.patch.object(DeviceNumbers, "read", lambda numbers: [float("nan")] * len(numbers._values)):
        trainer.settle()
    assert trainer.state.skipped == skipped + 1


class StepWatch(TorchDispatchMode):
    """Counts what the host reads of the device and does beside it in a step, and answers for a device without values.

    What it reads is 0, and 2 of its own tensors, such as step counts. Torch's fused kernels, some of which know no
    tensors without values, are told from what they ask of their arguments.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        super().__init__()
        self.host: list[str] = []
        self.optimizer_host: list[str] = []
        self.reads: list[str] = []
        self.optimizer_reads: list[str] = []
        """Operations on the host and places that read the device, outside of the optimizer's step and in it."""
        self.fused = 0
        self.answers = 0
        self._in_optimizer = False
        self._hooks = [
            optimizer.register_step_pre_hook(lambda *_: self._enter_optimizer(True)),
            optimizer.register_step_post_hook(lambda *_: self._enter_optimizer(False)),
        ]

    def answer(self, numbers: DeviceNumbers) -> list[float]:
        """In the place of :meth:`engine.devices.kinds.DeviceNumbers.read`."""
        self.answers += 1
        return [0.0] * len(numbers._values)

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for hook in self._hooks:
            hook.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            if args[0].device.type == "cpu":
                return 2.0
            (self.optimizer_reads if self._in_optimizer else self.reads).append(_caller())
            return 0.0
        if "::_fused_" in func.name():
            self.fused += 1
            return _check_fused(args, kwargs)
        out = func(*args, **(kwargs or {}))
        if on_host(args, kwargs, out):
            (self.optimizer_host if self._in_optimizer else self.host).append(str(func))
        return out

    def _enter_optimizer(self, entered: bool) -> None:
        self._in_optimizer = entered


def _check_fused(args: Any, kwargs: Any) -> None:
    """Raises an AssertionError where a fused kernel would, or would take one element for another."""
    lists = [arg for arg in args if isinstance(arg, list | tuple) and arg]
    for of_one_parameter in zip(*lists, strict=True):
        assert {tensor.device for tensor in of_one_parameter} == {DEVICE}
        assert len({tensor.stride() for tensor in of_one_parameter if tensor.ndim}) == 1
    found_inf = kwargs["found_inf"]
    assert (found_inf.device, found_inf.dtype, found_inf.numel()) == (DEVICE, torch.float32, 1)


def _caller() -> str:
    """The place in the suite, or in timm, that is running."""
    places = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_stack()]
    return next(place for place in reversed(places) if "/timm/" in place or "/engine/" in place)
