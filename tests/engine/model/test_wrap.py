"""The wrapped model: gradients over ranks, layout, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch._dynamo.utils import counters
from torch.nn.parallel import DistributedDataParallel

import engine.model.wrap
from engine.config.run import DistributedConfig
from engine.config.training import TrainingConfig
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.model.wrap import prepare_model, wrap_model
from swin import swin_tiny
from tests.distributed import run_ranks
from tests.engine.toy import prepare_network

CPU = Ranks(Layout(), torch.device("cpu"))
CUDA = Ranks(Layout(world_size=2), torch.device("cuda", 0))


def network() -> Any:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2))


def test_a_single_process_trains_the_model_itself() -> None:
    model = network()
    assert prepare_network(model, TrainingConfig(), CPU) is model


def step_on_ranks(ranks: Ranks, inputs: torch.Tensor) -> dict[str, Any]:
    """Gradients and buffers after a backward pass of each rank on its own input, from weights of its own."""
    torch.manual_seed(ranks.rank)
    model = network()
    wrapped = prepare_network(model, TrainingConfig(), ranks)
    start = model[0].weight.detach().clone()
    wrapped(inputs[ranks.rank]).square().sum().backward()
    wrapped(inputs[ranks.rank])  # a second forward pass would begin with rank 0's buffers if they were spread
    return {
        "is_ddp": isinstance(wrapped, DistributedDataParallel),
        "names": list(model.state_dict()),
        "start": start,
        "gradients": [parameter.grad for parameter in model.parameters()],
        "mean": model[1].running_mean,
    }


def test_gradients_are_averaged_over_ranks_and_weights_start_equal() -> None:
    inputs = torch.randn(2, 3, 3, 6, 6, generator=torch.Generator().manual_seed(5))
    first, second = run_ranks(2, step_on_ranks, inputs)
    assert first["is_ddp"] and second["is_ddp"]
    assert first["names"] == second["names"] == list(network().state_dict())
    assert torch.equal(first["start"], second["start"])
    torch.manual_seed(0)
    reference = network()
    assert torch.equal(first["start"], reference[0].weight)
    (sum(reference(x).square().sum() for x in inputs) / 2).backward()
    for ours, theirs, expected in zip(
        first["gradients"], second["gradients"], (p.grad for p in reference.parameters()), strict=True
    ):
        assert torch.equal(ours, theirs)
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    torch.manual_seed(0)
    alone = network()
    for _ in range(2):
        alone(inputs[1])
    assert torch.equal(second["mean"], alone[1].running_mean)  # uniting ranks is engine.model.batch_norm's part


def test_channels_last() -> None:
    model: Any = network()
    assert prepare_network(model, TrainingConfig(channels_last=True), CPU) is model
    weight: torch.Tensor = model.get_parameter("0.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    assert not network()[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_compiling_keeps_the_models_names() -> None:
    model = network()
    wrapped = prepare_network(model, TrainingConfig(compile=True), CPU)
    assert wrapped is not model
    assert list(model.state_dict()) == list(network().state_dict())
    assert next(wrapped.parameters()) is next(model.parameters())


@pytest.mark.parametrize(
    "build",
    [
        lambda: swin_tiny(num_classes=5, embed_dim=8, depths=(2, 2), num_heads=(1, 2), window_size=2, drop_path=0.0),
        lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, embed_dim=12, num_heads=2),
    ],
    ids=["swin", "timm"],
)
def test_activation_checkpointing_computes_blocks_twice_and_the_same_gradients(build: Any) -> None:
    calls, gradients = [], []
    for wanted in (False, True):
        torch.manual_seed(0)
        model = prepare_network(build(), TrainingConfig(activation_checkpointing=wanted), CPU).train()
        layers = [layer for name, layer in model.named_modules() if name.endswith("mlp.fc1")]
        counts = [0]
        for layer in layers:
            layer.register_forward_hook(lambda *_, counts=counts: counts.__setitem__(0, counts[0] + 1))
        model(torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)).square().sum().backward()
        calls.append(counts[0] / len(layers))
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert calls == [1, 2]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("build", [network, lambda: timm.create_model("inception_v4", num_classes=2)], ids=["", "timm"])
def test_models_that_cannot_recompute_are_refused(build: Any) -> None:
    with pytest.raises(UserError, match=r"training\.activation_checkpointing: \w+ does not support it"):
        prepare_network(build(), TrainingConfig(activation_checkpointing=True), CPU)


def test_sync_batchnorm_is_refused_on_several_cpus_and_does_nothing_on_one() -> None:
    distributed = DistributedConfig(sync_batchnorm=True)
    with pytest.raises(UserError, match=r"distributed\.sync_batchnorm: works on CUDA only"):
        prepare_model(network(), TrainingConfig(), distributed, Ranks(Layout(world_size=2), torch.device("cpu")))
    alone = prepare_model(nn.Sequential(nn.BatchNorm1d(3)), TrainingConfig(), distributed, CPU)
    assert type(alone[0]) is nn.BatchNorm1d


def test_sync_batchnorm_replaces_every_layer_and_keeps_names_and_activations() -> None:
    model: Any = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), BatchNormAct2d(4, act_layer=nn.ReLU))
    names, weight = list(model.state_dict()), model[1].weight
    training = TrainingConfig(precision="fp32")
    prepare_model(model, training, DistributedConfig(sync_batchnorm=True), CUDA)
    assert isinstance(model[1], nn.SyncBatchNorm) and isinstance(model[2], nn.SyncBatchNorm)
    assert list(model.state_dict()) == names and model[1].weight is weight
    assert model.eval()(torch.randn(2, 3, 6, 6))[:, :4].min() >= 0, "the activation is to be kept"


def gradients_of_steps(ranks: Ranks, steps: int, grad_comm: str) -> list[torch.Tensor]:
    """All gradients of a small Swin, flattened, at each of some steps that differ in nothing."""
    torch.manual_seed(0)
    # Half as wide as Swin-T: still of several of DDP's buckets.
    model = swin_tiny(num_classes=5, img_size=32, window_size=2, drop_path=0.0, depths=(1, 1, 1, 1), embed_dim=48)
    wrapped = prepare_network(model, TrainingConfig(grad_comm=grad_comm), ranks)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(ranks.rank))
    found = []
    for _ in range(steps):
        wrapped(images).square().sum().backward()
        found.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))  # type: ignore[union-attr]
        wrapped.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("grad_comm", ["fp32", "bf16"])
def test_the_first_step_after_a_start_sums_gradients_as_any_other(grad_comm: str) -> None:
    for first, second, third in run_ranks(3, gradients_of_steps, 3, grad_comm):
        assert first.abs().sum() > 0
        assert torch.equal(first, second)
        assert torch.equal(second, third)


class LikeOnGpus(DistributedDataParallel):
    """Runs on the CPU what DDP does to the inputs of a model whose ``device_ids`` are given."""

    def __init__(self, module: nn.Module, device_ids: list[int] | None = None, **named: Any) -> None:
        super().__init__(module, **named)
        self.device_ids = device_ids


def gradients_with_ranks_on_gpus(ranks: Ranks) -> torch.Tensor:
    engine.model.wrap.DistributedDataParallel = LikeOnGpus  # type: ignore[misc]
    on_gpus = replace(ranks, device=torch.device("cuda", ranks.rank))
    torch.manual_seed(0)
    model = network()
    wrapped = wrap_model(model, TrainingConfig(), on_gpus)
    wrapped(torch.ones(2, 3, 6, 6)).sum().backward()
    return model[0].weight.grad


def test_ranks_on_gpus_build_the_same_network() -> None:
    """With `device_ids`, DDP takes the first input of a call to its device; settling calls without any."""
    first, second = run_ranks(2, gradients_with_ranks_on_gpus)
    assert torch.equal(first, second) and first.abs().sum() > 0


def test_settling_leaves_no_gradients_and_no_weight_changed() -> None:
    for kept in run_ranks(2, what_settling_leaves):
        assert kept == {"gradients": 0, "unchanged": True}


def what_settling_leaves(ranks: Ranks) -> dict[str, Any]:
    model = network()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    torch.manual_seed(0)
    prepare_network(model, TrainingConfig(), ranks)
    changed = ranks.rank == 0 and any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    return {"gradients": sum(p.grad is not None for p in model.parameters()), "unchanged": not changed}


@pytest.mark.parametrize("precision, quick", [("bf16", True), ("fp32", False)])
def test_depthwise_convolutions_are_the_quick_ones_in_bf16_alone(precision: str, quick: bool) -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 5, groups=4))
    prepare_network(model, TrainingConfig(precision=precision), CPU)
    assert (type(model[0]) is not nn.Conv2d) == quick


def gradients_sent_as(ranks: Ranks, kinds: tuple[str, ...]) -> dict[str, list[torch.Tensor]]:
    """This rank's own gradients, and those that all ranks have in common after sending them as each of ``kinds``."""
    found = {}
    for kind in ("own", *kinds):
        torch.manual_seed(0)
        model = network()
        wrapped = prepare_network(model, TrainingConfig(grad_comm=kind), ranks) if kind != "own" else model
        torch.manual_seed(1 + ranks.rank)
        wrapped(torch.randn(3, 3, 6, 6)).square().sum().backward()
        found[kind] = [parameter.grad for parameter in model.parameters()]
    return found


def test_gradients_sent_in_bf16_are_rounded_and_nothing_else() -> None:
    first, second = run_ranks(2, gradients_sent_as, ("fp32", "bf16"))
    for number, rounded in enumerate(first["bf16"]):
        assert torch.equal(rounded, second["bf16"][number])
        halves = [(rank["own"][number].bfloat16() / 2) for rank in (first, second)]
        assert torch.equal(rounded, (halves[0] + halves[1]).float())
        scale = max(rank["own"][number].abs().max() for rank in (first, second))
        torch.testing.assert_close(rounded, first["fp32"][number], rtol=0, atol=float(2**-7 * scale))
    assert not all(map(torch.equal, first["bf16"], first["fp32"]))


def compiled_losses(ranks: Ranks, cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Losses of three steps of a small Swin with each of some settings, names of its weights, and graphs compiled."""
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(ranks.rank))
    losses, names, graphs = [], [], []
    for case in cases:
        torch.use_deterministic_algorithms(case.get("deterministic", False))
        torch.manual_seed(0)
        model = swin_tiny(num_classes=5, window_size=2, depths=(2,), embed_dim=8, num_heads=(2,), drop_path=0.3)
        counters.clear()
        wrapped = prepare_network(model, TrainingConfig(**case), ranks)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        losses.append([])
        for step in range(3):
            torch.manual_seed(step)
            loss = wrapped(images).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[-1].append(float(loss))
        names.append(list(model.state_dict()))
        graphs.append(counters["stats"]["unique_graphs"])
    return {"losses": losses, "names": names, "graphs": graphs}


COMPILED: list[dict[str, Any]] = [
    {},
    {"compile": True},
    {"compile": "default", "activation_checkpointing": True, "deterministic": True},
]


@pytest.mark.parametrize("world_size", [1, 2])
def test_compiled_networks_train_alike_also_recomputing_and_deterministic(world_size: int) -> None:
    for rank in run_ranks(world_size, compiled_losses_without_inductor, COMPILED):
        assert rank["graphs"] == [0, 2, 2]
        first, *others = rank["losses"]
        assert len(set(first)) == 3
        for losses in others:
            assert losses == pytest.approx(first, rel=1e-4)
        assert all(names == rank["names"][0] for names in rank["names"])


def compiled_losses_without_inductor(ranks: Ranks, cases: list[dict[str, Any]]) -> dict[str, Any]:
    """As :func:`compiled_losses`, by a backend that traces as the default one does, and generates no code (slow)."""
    engine.model.wrap.compile_for_training = partial(engine.model.wrap.compile_for_training, backend="aot_eager")
    return compiled_losses(ranks, cases)
