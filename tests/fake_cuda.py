"""A CUDA device that is none, for :mod:`tests.test_fake_cuda` and its neighbours: places, types, shapes, no values."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.devices.precision import Precision
from tests.distributed import FORKSERVER

DEVICE = torch.device("cuda", 0)


class HostTensors(TorchDispatchMode):
    """Lists the operations that take or make a tensor on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if on_host(args, kwargs, out):
            self.found.append(str(func))
        return out


def _copied(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """In the place of torch's deep copy, which looks into the tensor's memory."""
    copy = tensor.detach().clone()
    return nn.Parameter(copy, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copy


def on_host(*trees: Any) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.device.type == "cpu" for leaf in tree_leaves(trees))


@contextmanager
def _gpu_present() -> Iterator[None]:
    with (
        mock.patch("torch.cuda.is_available", return_value=True),
        mock.patch("torch.cuda.is_bf16_supported", return_value=True),
    ):
        yield


@contextmanager
def autocast(name: str) -> Iterator[None]:
    """The arithmetic of a GPU, which torch switches off where there is none."""
    with _gpu_present():
        context = Precision(name, "cuda").autocast()
    with context:
        assert torch.is_autocast_enabled("cuda") == (name != "fp32")
        yield


@contextmanager
def cuda_stubs() -> Iterator[mock.MagicMock]:
    """What a trainer asks of CUDA besides arithmetic, without a driver. Yields the device's stream."""
    generator = torch.Generator

    def with_gpu(function: Callable[[Precision], Any]) -> Callable[[Precision], Any]:
        return lambda precision: _gpu_present()(function)(precision)

    stream = mock.MagicMock()
    with ExitStack() as stack:
        for patch in (
            mock.patch.object(Precision, "scaler", with_gpu(Precision.scaler)),
            mock.patch.object(Precision, "autocast", with_gpu(Precision.autocast)),
            mock.patch.object(FakeTensor, "__deepcopy__", _copied),
            mock.patch("torch.optim.optimizer._foreach_supported_types", [Tensor, nn.Parameter, FakeTensor]),
            mock.patch("torch.Generator", lambda device=None: generator()),
            mock.patch("torch.cuda.current_stream", return_value=stream),
            mock.patch("torch.cuda.get_device_capability", return_value=(9, 0)),
            mock.patch("torch.cuda.get_device_properties", return_value=SimpleNamespace(L2_cache_size=2**25)),
            mock.patch("engine.devices.kinds._record_event", return_value=None),
            mock.patch("engine.checkpoints.host_copy._identity", id),  # such tensors have no addresses
        ):
            stack.enter_context(patch)
        yield stream


def replaced(model: nn.Module, change: Callable[[Tensor], Tensor]) -> nn.Module:
    """The model with other parameters and buffers in the place of its own."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                wanted = parameter.requires_grad
                module._parameters[name] = nn.Parameter(change(parameter.detach()), requires_grad=wanted)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = change(buffer)
    return model


def run_apart(function: Callable[..., None], folder: Path, *args: Any) -> None:
    """Calls ``function(*args)`` in a process of its own, which has no use for CUDA afterwards.

    Raises:
        AssertionError: it failed; with its traceback.
    """
    error = folder / "error.txt"
    child = FORKSERVER.Process(target=_called, args=(function, error, args), daemon=True)
    child.start()
    child.join(300)
    child.kill()
    assert child.exitcode == 0, error.read_text()


def _called(function: Callable[..., None], error: Path, args: tuple[Any, ...]) -> None:
    with error.open("w") as file, redirect_stderr(file):
        try:
            function(*args)
        except BaseException:
            traceback.print_exc()
            raise
