"""What differs between kinds of devices, in one table; everything else is the same code for all of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.config.training import TrainingConfig
from engine.devices.allocator import keep_large_blocks
from engine.devices.averaging import lerp_one_by_one, lerp_together


@dataclass(frozen=True)
class DeviceKind:
    """Treatment of one kind of device."""

    backend: str
    """The process group's backend where `distributed.backend` leaves it open."""
    pin_memory: bool
    """Whether batches are read into page-locked memory, from which a copy to the device does not stop the host."""
    slow_depthwise: frozenset[str]
    """Precisions in which :mod:`engine.devices.depthwise` replaces depthwise convolutions."""
    lerp: Callable[[tuple[Tensor, ...], tuple[Tensor, ...], Tensor], None]
    """Moves tensors towards as many others by a weight on the device, as the moving average does after each step."""
    set_up: Callable[[TrainingConfig], None]
    """Makes the settings of torch that concern this kind alone, for the whole process."""


def wants_tf32(config: TrainingConfig) -> bool:
    """Returns whether `training.tf32` is on; `auto` is, unless the run is to be deterministic."""
    return not config.deterministic if config.tf32 == "auto" else config.tf32


def _set_up_cpu(config: TrainingConfig) -> None:
    keep_large_blocks()


def _set_up_cuda(config: TrainingConfig) -> None:
    tf32 = wants_tf32(config)
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = not config.deterministic
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS makes its first handle


DEVICES = {
    "cpu": DeviceKind("gloo", False, frozenset({"bf16"}), lerp_one_by_one, _set_up_cpu),
    "cuda": DeviceKind("nccl", True, frozenset(), lerp_together, _set_up_cuda),
}


def device_kind(device: torch.device) -> DeviceKind:
    """Returns the row of :data:`DEVICES` for ``device``."""
    return DEVICES[device.type]


class DeviceNumbers:
    """Numbers on their way from the device to the host, which goes on meanwhile.

    Reading a CUDA tensor with ``tolist()`` would wait for all work that was queued before, also for what was queued
    after the numbers were computed. The copy is queued here instead, and :meth:`read` waits for that alone.
    """

    def __init__(self, values: Tensor) -> None:
        """Queues the copy of ``values``, (N,); they must not be changed until they are read."""
        self._values = values.to("cpu", non_blocking=True)  # into page-locked memory where it comes from a GPU
        self._copied = _record_event(values.device)

    def read(self) -> list[float]:
        """Returns the numbers, once they have arrived."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._values.tolist()


def _record_event(device: torch.device) -> torch.cuda.Event | None:
    """Marks the end of what is queued on ``device`` now; None where nothing is ever queued."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event
