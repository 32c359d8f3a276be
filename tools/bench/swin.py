"""Swin-T beside timm's and torchvision's: training and inference in fp32 and bf16.

Everything runs in one command, round by round. The allocator setting of :mod:`engine.devices.allocator` cannot be
undone in a process, so there are two workers, one with it and one without, which take turns: only one computes
at a time. "As they come" compares us as the suite runs, with the setting, with peers as a user gets them, without.
The rows "without ..." show what each departure from the plainest code is worth.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from time import perf_counter
from typing import IO, Any
from unittest.mock import patch

import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import swin
from engine.devices.allocator import keep_large_blocks
from swin.attention import ComposedAttention, fused_attention
from swin.windows import Grid, crop, cut, join, pad, shift_mask
from tools.bench.timing import Table, interleaved

MODES = ("train fp32", "train bf16", "inference fp32", "inference bf16")
PEERS = ("timm", "torchvision")
OURS = "swin"
EVALUATED_BATCHES = 3
WITHOUT = {
    "without learned-bias attention": ("train fp32", "train bf16"),
    "without fused attention": ("inference fp32", "inference bf16"),
    "without one-pass reordering": MODES,
    "without exact zeros in masks": MODES,
}
"""Our own model with one thing done plainly, and the modes that it touches."""


def run(quick: bool = False) -> Table:
    """Measures; `quick` is for seeing that it works: two small images, one round."""
    batch, size, rounds = (2, 64, 1) if quick else (8, 224, 5)
    with Worker(batch, size, keep=True) as kept, Worker(batch, size, keep=False) as plain:
        work = {}
        for row in (*PEERS, OURS):
            for mode in MODES:
                work[_named(row, keep=False), mode] = lambda row=row, mode=mode: plain.measure(row, mode)
                work[_named(row, keep=True), mode] = lambda row=row, mode=mode: kept.measure(row, mode)
        for row, modes in WITHOUT.items():
            for mode in modes:
                work[row, mode] = lambda row=row, mode=mode: kept.measure(row, mode)
        samples = interleaved(work, rounds)
    order = [*(_named(row, keep) for keep in (False, True) for row in (*PEERS, OURS)), *WITHOUT]
    samples = {row: samples[row] for row in order}
    table = Table("swin", f"Swin-T, batch {batch} at {size}", "ms per image", samples)
    medians = table.medians()
    for title, ours, theirs in (
        ("peers as they come / swin", True, False),
        ("the same, both without the setting", False, False),
        ("the same, both with it", True, True),
    ):
        table.ratios[title] = {
            mode: min(medians[_named(peer, theirs)][mode] for peer in PEERS) / medians[_named(OURS, ours)][mode]
            for mode in MODES
        }
    for row, modes in WITHOUT.items():
        table.ratios[f"{row} / with"] = {mode: medians[row][mode] / medians[_named(OURS, True)][mode] for mode in modes}
    return table


def _named(row: str, keep: bool) -> str:
    return f"{row}, memory kept" if keep else row


class Worker:
    """A process that holds all models and measures one of them whenever it is asked to."""

    def __init__(self, batch: int, size: int, keep: bool) -> None:
        command = [sys.executable, "-m", "tools.bench.swin", str(batch), str(size), "keep" if keep else "plain"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def measure(self, row: str, mode: str) -> float:
        """Milliseconds per image of one step."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([row, mode]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the measuring process ended with {self.process.wait()}")
        return float(answer)


def serve(batch: int, size: int, questions: IO[str], answers: IO[str]) -> None:
    """Serves as the worker: a line ``[row, mode]`` in, a line with milliseconds per image out, until input ends."""
    torch.manual_seed(0)
    models: dict[str, nn.Module] = {
        "timm": timm.create_model("swin_tiny_patch4_window7_224", img_size=size),
        "torchvision": torchvision.models.swin_t(),
        OURS: swin.swin_tiny(),
    }
    images, labels = torch.randn(batch, 3, size, size), torch.randint(0, 1000, (batch,))
    for question in questions:
        row, mode = json.loads(question)
        with plainly(row):
            seconds = step(models.get(row, models[OURS]), mode, images, labels)
        print(1000 * seconds / batch, file=answers, flush=True)


def step(model: nn.Module, mode: str, images: Tensor, labels: Tensor) -> float:
    """Seconds a batch: of forward and backward pass, or of forward passes alone.

    Inference takes several batches under one autocast, as an evaluation does; it then casts the weights only once.
    """
    training = mode.startswith("train")
    batches = 1 if training else EVALUATED_BATCHES
    model.train(training)
    start = perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=mode.endswith("bf16")), torch.inference_mode(not training):
        for _ in range(batches):
            loss = F.cross_entropy(model(images).float(), labels)
    if training:
        loss.backward()
    seconds = perf_counter() - start
    model.zero_grad(set_to_none=True)
    return seconds / batches


def plainly(row: str) -> AbstractContextManager[Any]:
    """Puts the plain way of one thing in place of ours; nothing for rows that are whole models."""
    if row == "without learned-bias attention":
        return patch("swin.attention.attend", fused_attention)
    if row == "without fused attention":
        return patch("swin.attention.attend", lambda qkv, bias, mask, _: ComposedAttention.apply(qkv, bias, mask))
    if row == "without one-pass reordering":
        return patch.multiple(
            "swin.block",
            partition=lambda x, grid: cut(pad(x, grid), grid),
            merge=lambda windows, grid: crop(join(windows, grid), grid),
        )
    if row == "without exact zeros in masks":
        return patch("swin.model.shift_mask", _shallow_mask)
    return nullcontext()


@lru_cache(maxsize=16)
def _shallow_mask(grid: Grid, device: torch.device) -> Tensor | None:
    """Returns the mask with the -100 of other implementations."""
    mask = shift_mask(grid, device)
    return None if mask is None else mask.clamp(min=-100.0)


if __name__ == "__main__":
    images_a_batch, side, memory = sys.argv[1:]
    if memory == "keep":
        keep_large_blocks()
    serve(int(images_a_batch), int(side), sys.stdin, sys.stdout)
