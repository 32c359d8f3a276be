"""The copy of a state in memory: nothing shared with it, everything like it, and the same memory each time."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

from engine.checkpoints.host_copy import Snapshot


def addresses(tree: dict[str, torch.Tensor]) -> set[int]:
    return {tensor.data_ptr() for tensor in tree.values()}


def test_the_copy_does_not_follow_changes_in_place() -> None:
    state: dict[str, Any] = {
        "model": {"weight": torch.ones(3)},
        "steps": [torch.zeros(()), (torch.arange(4), "text")],
        "run": {"best": {"top1": 0.5}},
    }
    copied = Snapshot().take(state)
    state["model"]["weight"].add_(1)
    state["steps"][0].add_(1)
    state["steps"][1][0].add_(1)
    state["run"]["best"]["top1"] = 0.9
    assert copied["model"]["weight"].tolist() == [1, 1, 1]
    assert copied["steps"][0].item() == 0
    assert (copied["steps"][1][0].tolist(), copied["steps"][1][1]) == ([0, 1, 2, 3], "text")
    assert copied["run"] == {"best": {"top1": 0.5}}


def test_memory_is_used_again() -> None:
    snapshot, state = Snapshot(), {"a": torch.ones(1000), "b": torch.ones(1000), "c": torch.ones(10, dtype=torch.int64)}
    first = addresses(snapshot.take(state))
    state["a"].fill_(2)
    second = snapshot.take({name: tensor.clone() for name, tensor in reversed(state.items())})
    assert addresses(second) == first and len(first) == 3
    assert {name: tensor[0].item() for name, tensor in second.items()} == {"a": 2, "b": 1, "c": 1}


def test_other_shapes_get_other_memory() -> None:
    snapshot = Snapshot()
    snapshot.take({"a": torch.ones(3), "b": torch.ones(5)})
    for state in ({"a": torch.ones(5), "b": torch.ones(5)}, {"a": torch.ones(5, dtype=torch.int32)}, {}):
        copied = snapshot.take(state)
        assert len(addresses(copied)) == len(state)
        assert all(torch.equal(copied[name], tensor) for name, tensor in state.items())
        assert all(copied[name].dtype == tensor.dtype for name, tensor in state.items())


def test_strides_are_kept_and_gaps_are_not() -> None:
    dense = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    row = torch.randn(100, 100)[3]
    column = torch.randn(100, 100)[:, 3]
    repeated = torch.randn(1, 3).expand(50, 3)
    state = {"dense": dense, "row": row, "column": column, "repeated": repeated}
    copied = Snapshot().take(state)
    assert all(torch.equal(copied[name], tensor) for name, tensor in state.items())
    assert copied["dense"].stride() == dense.stride()
    assert [copied[name].untyped_storage().nbytes() for name in ("row", "column", "repeated")] == [400, 400, 600]


def test_tied_tensors_stay_tied_and_others_do_not() -> None:
    weight, empty = torch.randn(6), torch.empty(0)
    tied = {"a": weight.view(2, 3), "b": weight.view(2, 3), "c": weight[:2], "d": empty, "e": torch.empty(0)}
    copied = Snapshot().take(tied)
    assert copied["a"].data_ptr() == copied["b"].data_ptr()
    assert copied["c"].data_ptr() not in (copied["a"].data_ptr(), weight.data_ptr())
    assert torch.equal(copied["c"], weight[:2])
    copied["d"].resize_(1)
    assert copied["e"].shape == (0,)


def test_a_models_state_loads_from_its_copy() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    with torch.no_grad():
        model[1].running_mean.uniform_()
    copied = Snapshot().take({"model": model.state_dict(), "parameters": list(model.parameters())})
    assert isinstance(copied["model"], OrderedDict)
    assert copied["model"]._metadata == model.state_dict()._metadata
    assert all(type(tensor) is torch.Tensor and not tensor.requires_grad for tensor in copied["parameters"])
    other = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    other.load_state_dict(copied["model"])
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_tensors_of_a_gpu_come_to_pinned_memory() -> None:
    snapshot = Snapshot()
    state = {"on": torch.arange(1_000_000, device="cuda"), "off": torch.arange(10)}
    for added in (0, 1):
        copied = snapshot.take(state)
        state["on"].add_(1)
        assert copied["on"].is_pinned() and torch.equal(copied["on"], torch.arange(1_000_000) + added)
        assert torch.equal(copied["off"], torch.arange(10))
