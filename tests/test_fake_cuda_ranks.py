"""Two ranks on CUDA devices that are none, see :mod:`tests.fake_cuda`: DDP, statistics, and optimizer state in parts.

Torch's fake process group does nothing and says that it is done: here is what is sent from where, not what arrives.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore

import engine.model.wrap
from engine.checkpoints.host_copy import tensors_in
from engine.config.training import TrainingConfig
from engine.devices.kinds import DEVICES
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.model.wrap import wrap_model
from tests.fake_cuda import DEVICE, HostTensors, cuda_stubs, replaced, run_apart
from tests.fake_training import Small, gradients_by_hand, small_task, trainer_of, watched_steps


class WithoutEvents(dist.Reducer):
    """Takes no times with CUDA's events, and waits for no gradients, since there are no backward passes."""

    def prepare_for_forward(self) -> None:
        pass

    def prepare_for_backward(self, outputs: list[Tensor]) -> None:
        pass


class WithoutTimes(dist.Logger):
    def set_runtime_stats_and_log(self) -> None:
        pass


def to_empty(model: nn.Module, *, device: torch.device) -> nn.Module:
    """In the place of the method, which cannot exchange the contents of such tensors."""
    return replaced(model, lambda tensor: torch.empty_like(tensor, device=device))


def as_if_all_alike(objects: list[Any], **_: Any) -> None:
    """In the place of a broadcast of objects: each rank has sent what this one has."""


def steps_of_a_rank(precision: str) -> None:
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    ranks = Ranks(Layout(world_size=2), DEVICE, "nccl")
    fake = FakeTensorMode()
    with (
        cuda_stubs(),
        mock.patch.object(dist, "Reducer", WithoutEvents),
        mock.patch.object(dist, "Logger", WithoutTimes),
        mock.patch.object(dist, "broadcast_object_list", as_if_all_alike),
        mock.patch("torch.nn.parallel.distributed._verify_param_shape_across_processes"),  # reads the shapes
        mock.patch("torch.equal", return_value=True),
        mock.patch.object(nn.Module, "to_empty", to_empty),
    ):
        task = small_task(fake)
        with fake, gradients_by_hand(task.model):
            trainer = trainer_of(task, "adamw", precision, ranks)
            assert isinstance(trainer.learner.network, DistributedDataParallel)
            watched_steps(trainer, "adamw", 4)
            assert 0 < len(trainer.learner.optimizer.state) < len(list(task.model.parameters()))
            with mock.patch.object(torch.amp.GradScaler, "state_dict", lambda scaler: {}):
                whole = trainer.state_dict()["optimizer"]["state"]
            assert {tensor.device for tensor in tensors_in(whole)} == {torch.device("cpu")}  # as another rank's


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_ranks_reduce_and_share_on_the_device(precision: str, tmp_path: Path) -> None:
    run_apart(steps_of_a_rank, tmp_path, precision)


class OfTheSameBuckets(dist.Reducer):
    """Does not divide the gradients anew after the first pass, for which the host reads what rank 0 has sent."""

    def _rebuild_buckets(self) -> bool:
        return False


class ReducingInPython(DistributedDataParallel):
    """Has its gradients summed by a hook, where the fake group's answer can be given."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.register_comm_hook(None, allreduce_hook)


def answered(tensor: Tensor, **_: Any) -> mock.Mock:
    """In the place of a reduction that has not ended: one whose answer is there."""
    future: torch.futures.Future[list[Tensor]] = torch.futures.Future()
    future.set_result([tensor])
    return mock.Mock(get_future=lambda: future)


def backward_of_a_rank(grad_comm: str) -> None:
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    device = torch.device("meta")
    ranks = Ranks(Layout(world_size=2), device, "nccl")
    model = Small().to(device)
    parallel = ReducingInPython if grad_comm == "fp32" else DistributedDataParallel
    with (
        mock.patch.dict(DEVICES, meta=DEVICES["cuda"]),
        mock.patch.object(engine.model.wrap, "DistributedDataParallel", parallel),
        mock.patch.object(dist, "Reducer", OfTheSameBuckets),
        mock.patch.object(dist, "all_reduce", answered),
        mock.patch("torch.nn.parallel.distributed._verify_param_shape_across_processes"),  # reads the shapes
        HostTensors() as host,
    ):
        network: Any = wrap_model(model, TrainingConfig(grad_comm=grad_comm), ranks)
        samples = torch.empty(4, 6, device=device)
        for _ in range(2):
            with network.no_sync():
                network(samples).sum().backward()
            network(samples).sum().backward()
            gradients = [parameter.grad for parameter in model.parameters()]
            assert all(gradient is not None and gradient.device == device for gradient in gradients)
            network.zero_grad()
    assert not host.found, host.found


@pytest.mark.parametrize("grad_comm", ["fp32", "bf16"])
def test_gradients_are_reduced_without_the_host(grad_comm: str, tmp_path: Path) -> None:
    """On torch's device without values, where the backward pass needs no driver."""
    run_apart(backward_of_a_rank, tmp_path, grad_comm)
