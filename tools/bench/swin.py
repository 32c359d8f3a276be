"""Swin-T beside timm's and torchvision's: training and inference in fp32 and bf16.

Everything runs in one command, round by round. The allocator setting of :mod:`engine.devices.allocator` cannot be
undone in a process, so there are two of them, one with it and one without, which take turns: only one computes
at a time. "As they come" compares us as the suite runs, with the setting, with peers as a user gets them, without.
Threads wait for each other alike on all sides. The rows "without ..." show what each departure from the plainest code
is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, partial
from itertools import product
from multiprocessing import get_context
from time import perf_counter
from typing import Any
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


@lru_cache(maxsize=16)
def _shallow_mask(grid: Grid, device: torch.device) -> Tensor | None:
    """Returns the mask with the -100 of other implementations."""
    mask = shift_mask(grid, device)
    return None if mask is None else mask.clamp(min=-100.0)


WITHOUT: dict[str, tuple[Sequence[str], Callable[[], AbstractContextManager[Any]]]] = {
    "without learned-bias attention": (MODES[:2], partial(patch, "swin.attention.attend", fused_attention)),
    "without fused attention": (
        MODES[2:],
        partial(patch, "swin.attention.attend", lambda qkv, bias, mask, _: ComposedAttention.apply(qkv, bias, mask)),
    ),
    "without one-pass reordering": (
        MODES,
        partial(
            patch.multiple,
            "swin.block",
            partition=lambda x, grid: cut(pad(x, grid), grid),
            merge=lambda windows, grid: crop(join(windows, grid), grid),
        ),
    ),
    "without exact zeros in masks": (MODES, partial(patch, "swin.model.shift_mask", _shallow_mask)),
}
"""Our own model with one thing done plainly: the modes that it touches, and what puts the plain way in place."""


def run(quick: bool = False) -> Table:
    """Runs the benchmark; ``quick``: two small images, one round."""
    batch, size, rounds = (2, 64, 1) if quick else (8, 224, 5)
    context = get_context("spawn")
    with (
        ProcessPoolExecutor(1, context) as plain,
        ProcessPoolExecutor(1, context, initializer=keep_large_blocks) as kept,
    ):

        def asked(process: ProcessPoolExecutor, row: str, mode: str) -> Callable[[], float]:
            return lambda: process.submit(milliseconds, batch, size, row, mode).result()

        work = {
            (_named(row, keep), mode): asked(kept if keep else plain, row, mode)
            for keep, row, mode in product((False, True), (*PEERS, OURS), MODES)
        }
        work |= {(row, mode): asked(kept, row, mode) for row, (modes, _) in WITHOUT.items() for mode in modes}
        table = Table("swin", f"Swin-T, batch {batch} at {size}", "ms per image", interleaved(work, rounds))
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
    for row, (modes, _) in WITHOUT.items():
        table.compare_rows(row, _named(OURS, keep=True), modes, f"{row} / with")
    return table


def _named(row: str, keep: bool) -> str:
    return f"{row}, memory kept" if keep else row


@lru_cache(maxsize=1)
def _prepared(batch: int, size: int) -> tuple[dict[str, nn.Module], Tensor, Tensor]:
    """Builds all models, and draws images and labels, in the process that measures."""
    torch.manual_seed(0)
    models: dict[str, nn.Module] = {
        "timm": timm.create_model("swin_tiny_patch4_window7_224", img_size=size),
        "torchvision": torchvision.models.swin_t(),
        OURS: swin.swin_tiny(),
    }
    return models, torch.randn(batch, 3, size, size), torch.randint(0, 1000, (batch,))


def milliseconds(batch: int, size: int, row: str, mode: str) -> float:
    """Measures one step, per image, in the process that this is called in."""
    models, images, labels = _prepared(batch, size)
    with WITHOUT[row][1]() if row in WITHOUT else nullcontext():
        return 1000 * step(models.get(row, models[OURS]), mode, images, labels) / batch


def step(model: nn.Module, mode: str, images: Tensor, labels: Tensor) -> float:
    """Measures the seconds of a batch: of forward and backward pass, or of forward passes alone.

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
