"""What arrives of an object that one process sends to another: the same, bit by bit, and at the cost of its bytes."""

from __future__ import annotations

import sys
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from engine.checkpoints import store
from engine.data.names import Names
from engine.distributed.ranks import Ranks
from engine.distributed.transfer import broadcast, pack, unpack
from engine.errors import UserError
from tests.distributed import run_ranks


def sample() -> dict[str, Any]:
    """Tensors and arrays of all kinds that a checkpoint or a listing may hold."""
    torch.manual_seed(0)
    images = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    return {
        "bf16": torch.randn(5).bfloat16(),
        "half": torch.randn(3).half(),
        "scalar": torch.tensor(3.0),
        "empty": torch.empty(0, 3),
        "int64": torch.arange(4),
        "bool": torch.tensor([True, False]),
        "nan": torch.tensor([float("nan"), -0.0]),
        "channels_last": images,
        "view": images[1:, :, 2],
        "same": images,
        "transposed": torch.randn(3, 4).t(),
        "expanded": torch.ones(1).expand(4, 4),
        "large": torch.randn(1000),
        "parameter": nn.Parameter(torch.ones(2)),
        "array": np.arange(10.0).reshape(2, 5),
        "gaps": np.arange(10)[::2],
        "text": np.array(["a", "bb"]),
        "bytes": np.frombuffer(b"abc", np.uint8),
        "names": list(Names(["ü", "\udcff"])),
        "plain": {"epoch": 0.1, "none": None, 3: ("a", [1])},
    }


def difference(one: Any, other: Any) -> str:
    """Where two such trees differ; empty if nowhere."""
    if type(one) is not type(other):
        return f"{type(one)} and {type(other)}"
    if isinstance(one, dict):
        found = [f"{key}: {text}" for key in one if (text := difference(one[key], other[key]))]
        return "; ".join(found) or "" if list(one) == list(other) else "keys"
    if isinstance(one, torch.Tensor):
        forms = [(t.dtype, t.shape, t.stride(), t.storage_offset(), t.requires_grad) for t in (one, other)]
        bits = [t.detach().contiguous().flatten().view(torch.uint8) if t.ndim else t for t in (one, other)]
        return "" if forms[0] == forms[1] and torch.equal(*bits) else "tensor"
    if isinstance(one, np.ndarray):
        return "" if one.dtype == other.dtype and np.array_equal(one, other) else "array"
    return "" if one == other else "value"


def test_all_kinds_arrive_as_they_are() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        there = unpack([part.copy() for part in pack(sample())])
    assert difference(sample(), there) == ""
    assert there["same"] is there["channels_last"]
    there["channels_last"].zero_()
    assert not there["view"].any(), "memory that was shared is shared no more"


def test_contents_are_not_copied_into_the_pickle() -> None:
    value = {"array": np.zeros(10**6), "tensor": torch.zeros(10**6), "names": Names(map(str, range(10**5)))}
    tracemalloc.start()
    head, *parts = pack(value)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10**5 and len(head) < 2000 and sum(map(len, parts)) > 12 * 10**6


def receive(ranks: Ranks, chunk: int) -> list[Any]:
    ticks: list[int] = []
    parts = pack(sample()) if ranks.is_main else None
    got = broadcast(parts, ranks.device, lambda: ticks.append(1), chunk)
    total = sum(map(len, got))
    return [difference(sample(), unpack(got)), len(ticks), -(-total // chunk)]


@pytest.mark.parametrize(("world_size", "chunk"), [(2, 7), (3, 4096)])
def test_ranks_receive_it_in_chunks_with_a_tick_for_each(world_size: int, chunk: int) -> None:
    for wrong, ticks, chunks in run_ranks(world_size, receive, chunk):
        assert wrong == ""
        assert ticks == chunks > 1


def read_once(ranks: Ranks, folder: str) -> list[Any]:
    """What differs from the state that was saved, the files that this rank opened, and how a missing file ends."""
    opened: list[str] = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
    path = Path(folder, "step_00000001.pt")
    saved = ranks.from_main(lambda: store.read(path))
    try:
        ranks.from_main(lambda: store.read(path.with_name("gone.pt")))
    except UserError as error:
        return [difference(state(), saved), [name for name in opened if name.endswith(".pt")], str(error)]
    return []


def state() -> dict[str, Any]:
    """A checkpoint."""
    tensors = {key: value for key, value in sample().items() if type(value) is torch.Tensor and value.is_contiguous()}
    return {"format": store.FORMAT, "model": tensors, "run": {"step": 1, "best": None}}


@pytest.mark.parametrize("world_size", [2, 3])
def test_one_rank_reads_a_checkpoint_for_all(tmp_path: Path, world_size: int) -> None:
    store.save(tmp_path, 1, state(), keep=1)
    answers = run_ranks(world_size, read_once, str(tmp_path))
    for rank, (wrong, opened, error) in enumerate(answers):
        assert wrong == ""
        assert len(opened) == (2 if rank == 0 else 0), opened
        assert "gone.pt: cannot be read as a checkpoint" in error
