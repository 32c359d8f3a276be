"""Micro-batches on their way to the device."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch

from engine.data.batch_plan import BatchLayout
from engine.data.device_prefetch import DeviceBatches, Throughput
from engine.data.loaders import MicroBatch

CPU = torch.device("cpu")


def micro_batches(count: int, taken: list[int], delay: float = 0.0) -> Iterator[MicroBatch]:
    layout = BatchLayout(num_samples=8, global_batch_size=4)
    for number in range(count):
        time.sleep(delay)
        taken.append(number)
        yield MicroBatch(layout.slot(number, 0, 0), {"image": torch.full((4, 2), number), "target": torch.arange(4)})


def test_batches_come_in_order_with_their_slots() -> None:
    batches = DeviceBatches(micro_batches(3, []), CPU)
    for number in range(3):
        batch = batches.next()
        assert batch.slot.step == number
        assert batch.data["image"].tolist() == [[number, number]] * 4
        assert set(batch.data) == {"image", "target"}


def test_prefetch_takes_one_batch_and_only_one() -> None:
    taken: list[int] = []
    batches = DeviceBatches(micro_batches(3, taken), CPU)
    assert taken == []
    for _ in range(3):
        batches.prefetch()
        assert taken == [0]
    assert batches.next().slot.step == 0
    assert taken == [0]
    assert batches.next().slot.step == 1
    assert taken == [0, 1]


def test_prefetch_at_the_end_does_nothing_and_next_complains() -> None:
    batches = DeviceBatches(micro_batches(1, []), CPU)
    batches.next()
    batches.prefetch()
    batches.prefetch()
    with pytest.raises(AssertionError, match="the loader ended before the run"):
        batches.next()


def test_batches_are_taken_to_the_device() -> None:
    batches = DeviceBatches(micro_batches(1, []), torch.device("meta"))
    assert {tensor.device.type for tensor in batches.next().data.values()} == {"meta"}


def test_waiting_is_measured_wherever_it_happens() -> None:
    batches = DeviceBatches(micro_batches(2, [], delay=0.02), CPU)
    batches.next()
    first = batches.wait_seconds
    batches.prefetch()
    second = batches.wait_seconds
    batches.next()
    assert 0 < first < second
    assert batches.wait_seconds == second


def test_throughput() -> None:
    throughput = Throughput()
    assert throughput.metrics(1) == {}
    throughput.add(64, 0.5, 0.1)
    throughput.add(32, 1.5, 0.3)
    assert throughput.metrics(4) == {
        "images_per_second": 48.0,
        "images_per_second_per_device": 12.0,
        "data_wait_fraction": pytest.approx(0.2),
    }


def test_no_more_than_all_the_time_is_waited() -> None:
    throughput = Throughput()
    throughput.add(8, 1.0, 1.25)  # workers may be waited for outside of a step
    assert throughput.metrics(1)["data_wait_fraction"] == 1.0
