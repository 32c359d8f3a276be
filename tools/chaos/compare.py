"""Comparison, bit by bit, of what two runs have left behind. Each function returns the first difference, or None."""

from __future__ import annotations

import json
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.plugin_event_accumulator import (
    STORE_EVERYTHING_SIZE_GUIDANCE,
    EventAccumulator,
)
from torch import Tensor

from engine.run_folder.metrics import MEASURED
from engine.run_folder.paths import RunDir


def tree_difference(left: Any, right: Any, path: str = "") -> str | None:
    """Compares mappings, sequences, tensors and plain values; numbers by their bits, so that NaN equals NaN."""
    where = path or "the whole"
    if type(left) is not type(right):
        return f"{where}: {type(left).__name__} != {type(right).__name__}"
    if isinstance(left, dict):
        if left.keys() != right.keys():
            return f"{where}: only in one of them: {', '.join(map(str, sorted(left.keys() ^ right.keys(), key=str)))}"
        found = (tree_difference(left[key], right[key], f"{path}.{key}" if path else str(key)) for key in left)
        return next(filter(None, found), None)
    if isinstance(left, list | tuple):
        if len(left) != len(right):
            return f"{where}: {len(left)} entries != {len(right)}"
        pairs = enumerate(zip(left, right, strict=True))
        return next(filter(None, (tree_difference(a, b, f"{path}[{i}]") for i, (a, b) in pairs)), None)
    if isinstance(left, Tensor):
        fault = _tensor_difference(left, right)
        return f"{where}: {fault}" if fault else None
    return None if repr(left) == repr(right) else f"{where}: {left!r} != {right!r}"


def _tensor_difference(left: Tensor, right: Tensor) -> str | None:
    if (left.dtype, left.shape) != (right.dtype, right.shape):
        return f"{left.dtype} {tuple(left.shape)} != {right.dtype} {tuple(right.shape)}"
    flat = [tensor.detach().contiguous().reshape(-1) for tensor in (left, right)]
    bits = [each.view(torch.uint8).reshape(len(each), each.element_size()) for each in flat]
    unequal = (bits[0] != bits[1]).any(dim=1).nonzero().flatten().tolist()
    if not unequal:
        return None
    values = " != ".join(repr(each[unequal[0]].item()) for each in flat)
    return f"{len(unequal)} of {len(flat[0])} elements differ, first [{unequal[0]}]: {values}"


def read_checkpoint(folder: RunDir) -> dict[str, Any]:
    """Reads the newest checkpoint, without the configuration: that of another run names another folder."""
    saved = torch.load(folder.checkpoints / "last.pt", map_location="cpu", weights_only=True)
    return {name: entry for name, entry in saved.items() if name != "config"}


def checkpoint_differences(reference: RunDir, other: RunDir) -> dict[str, str | None]:
    """Returns what differs in each entry (model, ema, optimizer, run, ...) of the newest checkpoints."""
    left, right = read_checkpoint(reference), read_checkpoint(other)
    return {name: tree_difference(left.get(name), right.get(name)) for name in dict.fromkeys([*left, *right])}


def records(path: Path, split: str) -> list[dict[str, str]]:
    """Reads a split's own records without their times; each number as the text that stands in the file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [json.loads(line, parse_float=str, parse_int=str) for line in lines]
    return [
        {name: value for name, value in record.items() if name not in MEASURED}
        for record in found
        if record["split"] == split and "source" not in record
    ]


def records_difference(reference: Path, other: Path, split: str) -> str | None:
    """Compares a split's records in metrics.jsonl, number by number as text."""
    both = zip_longest(records(reference, split), records(other, split))
    for left, right in both:
        if left is None or right is None:
            return f"step {(left or right)['step']} is only in the {'killed run' if left is None else 'reference'}"
        if left != right:
            name = next(name for name in {**left, **right} if left.get(name) != right.get(name))
            return f"step {left['step']}: {name} {left.get(name)} != {right.get(name)}"
    return None


def order_fault(steps: list[int], last_step: int) -> str | None:
    """Returns None if ``steps`` strictly increase and end at ``last_step``."""
    for before, after in pairwise(steps):
        if after <= before:
            return f"step {after} comes after step {before}"
    return None if steps and steps[-1] == last_step else f"ends at step {steps[-1] if steps else None}, not {last_step}"


def metrics_order_fault(path: Path, last_step: int) -> str | None:
    """Returns None if in each split of a metrics.jsonl the steps strictly increase, up to ``last_step``."""
    for split in ("train", "val"):
        if fault := order_fault([int(record["step"]) for record in records(path, split)], last_step):
            return f"{split}: {fault}"
    return None


def board_tags(folder: Path) -> dict[str, tuple[list[int], bool]]:
    """Returns the steps of each tag as the TensorBoard web page reads them, and whether they are of numbers."""
    board = EventAccumulator(str(folder), STORE_EVERYTHING_SIZE_GUIDANCE).Reload()
    return {
        name: (
            [event.step for event in board.Tensors(name)],
            board.SummaryMetadata(name).plugin_data.plugin_name == "scalars",
        )
        for name in board.Tags()["tensors"]
    }


def board_fault(reference: Path, other: Path, last_step: int) -> str | None:
    """Returns None if both show the same tags, and each one's steps in ``other`` are ``reference``'s and in order.

    Numbers go on to ``last_step``; images and curves are drawn when there is something new to see.
    """
    left, right = board_tags(reference), board_tags(other)
    if not right or left.keys() != right.keys():
        return f"tags differ: {', '.join(sorted(left.keys() ^ right.keys())) or 'there are none'}"
    for name, (steps, is_number) in right.items():
        expected, _ = left[name]
        fault = order_fault(steps, last_step if is_number else expected[-1])
        if fault is None and steps != expected:
            fault = f"{len(steps)} steps, but {len(expected)} in the reference"
        if fault:
            return f"{name}: {fault}"
    return None


def status_difference(reference: Path, other: Path) -> str | None:
    """Returns None if both say finished and, but for the time, the same."""
    left, right = (json.loads(path.read_text(encoding="utf-8")) for path in (reference, other))
    if right["state"] != "finished":
        return f"state is {right['state']}"
    return tree_difference({**left, "updated": None}, {**right, "updated": None})
