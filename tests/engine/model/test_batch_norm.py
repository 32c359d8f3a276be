"""Running statistics of batch norm on real groups of ranks."""

from __future__ import annotations

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.model.batch_norm import BatchNormStatistics, uses_batch_norm
from tests.distributed import run_ranks

SINGLE = Ranks(Layout(), torch.device("cpu"))
KEPT, SKIPPED = torch.tensor(0.0), torch.tensor(1.0)
Buffers = dict[str, torch.Tensor]


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), BatchNormAct2d(4), nn.BatchNorm2d(4, track_running_stats=False)
    )


def buffers(model: nn.Module) -> Buffers:
    return {name: value.clone() for name, value in model.named_buffers() if "num_batches" not in name}


def three_steps(ranks: Ranks, world_size: int) -> list[Buffers]:
    """Statistics of a rank: its own after a step, then accepted, after a bad step, rejected, and accepted anew."""
    torch.manual_seed(0)
    model = network().train()
    statistics = BatchNormStatistics(model, ranks)
    found = []
    inputs = torch.randn(3, world_size, 5, 3, 6, 6, generator=torch.Generator().manual_seed(1))[:, ranks.rank]
    model(inputs[0])
    found.append(buffers(model))
    statistics.settle(KEPT)
    found.append(buffers(model))
    model(torch.full_like(inputs[1], torch.nan) if ranks.rank == 1 else inputs[1])
    found.append(buffers(model))
    statistics.settle(SKIPPED)
    found.append(buffers(model))
    model(inputs[2])
    statistics.settle(KEPT)
    return [*found, buffers(model)]


@pytest.mark.parametrize("world_size", [2, 3])
def test_all_ranks_hold_the_mean_and_a_skipped_step_leaves_no_trace(world_size: int) -> None:
    results = run_ranks(world_size, three_steps, world_size)
    for name in results[0][0]:
        own = torch.stack([result[0][name] for result in results])
        assert not torch.equal(own[0], own[1])
        for result in results:
            accepted, bad, rejected, again = (result[i][name] for i in range(1, 5))
            torch.testing.assert_close(accepted, own.mean(0))
            assert not torch.equal(bad, accepted)
            assert torch.equal(rejected, accepted)
            assert torch.equal(accepted, results[0][1][name])  # bitwise, or the ranks would drift apart
            assert torch.equal(again, results[0][4][name])
            assert again.isfinite().all() and not torch.equal(again, accepted)
        assert results[1][2][name].isnan().all()


def test_a_single_process_keeps_its_own_statistics() -> None:
    own, accepted, bad, rejected, again = three_steps(SINGLE, 1)
    for name in own:
        assert torch.equal(accepted[name], own[name])
        assert not torch.equal(bad[name], own[name])
        assert torch.equal(rejected[name], own[name])
        assert not torch.equal(again[name], own[name])


def test_loaded_statistics_are_good_ones() -> None:
    model, other = network(), network().train()
    other(torch.randn(4, 3, 6, 6))
    statistics = BatchNormStatistics(model, SINGLE)
    model.load_state_dict(other.state_dict())
    statistics.reload()
    model.train()(torch.full((4, 3, 6, 6), torch.nan))
    statistics.settle(SKIPPED)
    assert all(torch.equal(value, buffers(other)[name]) for name, value in buffers(model).items())


def test_models_without_batch_norm_cost_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4))
    statistics = BatchNormStatistics(model, Ranks(Layout(0, 2), torch.device("cpu"), "gloo"))
    assert not statistics
    statistics.settle(KEPT)  # would fail in a collective: there is no group
    statistics.settle(SKIPPED)
    statistics.reload()
    assert BatchNormStatistics(network(), SINGLE)


def test_uses_batch_norm() -> None:
    assert uses_batch_norm(network())
    assert uses_batch_norm(nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)))
    assert not uses_batch_norm(nn.Sequential(nn.LayerNorm(3), nn.GroupNorm(1, 3)))
