"""Batches in one piece of memory, which is used again when nothing refers to it, and not before."""

from __future__ import annotations

import gc
import os
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data._utils.pin_memory import pin_memory

from engine.process.batch_memory import BatchMemory, pack, unpack

BATCH: dict[str, Any] = {
    "image": torch.arange(2 * 3 * 5 * 7, dtype=torch.uint8).reshape(2, 3, 5, 7),
    "turned": torch.arange(12, dtype=torch.float64).reshape(3, 4).T,
    "mask": torch.tensor([True, False, True]),
    "half": torch.tensor([0.5, 1.5], dtype=torch.bfloat16),
    "number": torch.tensor(7),
    "none": torch.zeros(0, 4),
    "names": ["a", "b"],
    "more": [{"index": torch.tensor([3, 4, 5])}, "text"],
}


def tensors(batch: Any) -> list[Tensor]:
    if isinstance(batch, Tensor):
        return [batch]
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, list) else ()
    return [tensor for part in parts for tensor in tensors(part)]


@pytest.mark.parametrize("memory", [None, BatchMemory(2, 1, 4096)])
def test_a_batch_arrives_as_it_was(memory: BatchMemory | None) -> None:
    parcel = pack(BATCH, memory, 1)
    assert isinstance(parcel.memory, Tensor) == (memory is None)
    found = unpack(parcel, memory)
    assert found.keys() == BATCH.keys() and found["names"] == ["a", "b"] and found["more"][1] == "text"
    for own, given in zip(tensors(found), tensors(BATCH), strict=True):
        assert (own.dtype == given.dtype and torch.equal(own, given) and own.data_ptr() % 64 == 0) or not own.numel()
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors(found)}) == 1


def test_memory_of_its_own_is_shared() -> None:
    parcel = pack(BATCH, None, 0)
    assert isinstance(parcel.memory, Tensor) and parcel.memory.is_shared()


def test_page_locked_memory_is_one_copy_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "pin_memory", Tensor.clone)  # there is none without a GPU
    parcel = pack(BATCH, None, 0)
    batch, told = pin_memory((parcel, [("a.jpg", True)]))  # as the thread of torch's loader calls it
    found = unpack(batch, None)
    assert told == [("a.jpg", True)] and torch.equal(found["turned"], BATCH["turned"])
    assert isinstance(batch.memory, Tensor) and isinstance(parcel.memory, Tensor)
    assert found["image"].untyped_storage().data_ptr() == batch.memory.data_ptr() != parcel.memory.data_ptr()


def test_a_place_is_free_when_the_last_view_is_gone() -> None:
    memory = BatchMemory(2, 2, 1024)

    def free(worker: int) -> list[int]:
        places = []
        while (found := memory.take(worker, 1)) is not None:
            places.append(found[0])
        for place in places:
            memory.lend(place)  # and gives it back
        return places

    assert free(0) == [0, 1] and free(1) == [2, 3]
    batch = unpack(pack({"x": torch.arange(8), "y": torch.ones(3)}, memory, 1), memory)
    assert free(1) == [3] and free(0) == [0, 1]
    part = batch["x"][2:4].numpy()[1:]
    del batch
    assert free(1) == [3] and part.tolist() == [3]
    del part
    assert free(1) == [2, 3]


def test_what_finds_no_place_has_memory_of_its_own() -> None:
    memory = BatchMemory(1, 1, 1024)
    assert isinstance(pack(torch.zeros(1025, dtype=torch.uint8), memory, 0).memory, Tensor)
    assert isinstance(pack(torch.zeros(1024, dtype=torch.uint8), memory, 0).memory, int)
    again = pack(torch.ones(8), memory, 0)
    assert isinstance(again.memory, Tensor) and unpack(again, memory).tolist() == [1.0] * 8


def test_a_fork_gives_nothing_back() -> None:
    memory = BatchMemory(1, 1, 1024)
    batch = unpack(pack(torch.ones(8), memory, 0), memory)
    if (child := os.fork()) == 0:
        del batch
        gc.collect()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert memory.take(0, 1) is None
    del batch
    assert memory.take(0, 1) is not None
