"""Saving in the background beside saving in the loop, with the same guarantees: checksum, fsync, rename.

The state is what a run of Swin-T with AdamW saves. "Loop blocked" is the time until training may go on, "until on disk"
the time until the checkpoint has its name. A training step is measured with nothing else going on and while the
thread writes, and so is the longest time for which another thread of the process, which asks every millisecond, did
not get its turn. Files lie in a temporary folder: TMPDIR says on which disk.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import swin
from engine.checkpoints import store
from engine.checkpoints.background_saver import Saver
from engine.devices.allocator import keep_large_blocks
from engine.training.optimizer import named_state
from tools.bench.timing import CPU, Table, interleaved, timed

BLOCKED, ON_DISK, STEP, PAUSE = "loop blocked", "until on disk", "training step", "longest pause"
BACKGROUND, SYNCHRONOUS, IDLE = "background", "synchronous", "nothing saved"


def run(quick: bool = False) -> Table:
    """Runs the benchmark; ``quick``: a small model, one round."""
    keep_large_blocks()
    torch.manual_seed(0)
    model = swin.swin_tiny(embed_dim=24, num_heads=(1, 2, 4, 8)) if quick else swin.swin_tiny()
    with tempfile.TemporaryDirectory() as name:
        training = Training(model, 64 if quick else 224)
        training.step()
        saver = Saver(Path(name) / BACKGROUND, keep=2)
        saving = Saving(training, Path(name) / SYNCHRONOUS, saver)
        work = {
            (SYNCHRONOUS, BLOCKED): saving.synchronous,
            (BACKGROUND, BLOCKED): saving.blocked,
            (SYNCHRONOUS, ON_DISK): saving.synchronous,
            (BACKGROUND, ON_DISK): saving.on_disk,
            (IDLE, STEP): lambda: median(training.step() for _ in range(3)),
            (BACKGROUND, STEP): saving.steps,
            (IDLE, PAUSE): lambda: longest_pause(lambda: sleep(0.5)),
            (BACKGROUND, PAUSE): saving.pause,
        }
        samples = interleaved(work, 1 if quick else 9)
        saver.close()
        size = max(file.stat().st_size for file in Path(name).rglob("step_*.pt"))
    table = Table("checkpoint", f"Saving Swin-T with AdamW, {size / 1e6:.0f} MB", "milliseconds", samples)
    table.compare_rows(BACKGROUND, SYNCHRONOUS, (BLOCKED, ON_DISK))
    table.compare_rows(BACKGROUND, IDLE, (STEP,))
    return table


class Training:
    """A training step of one image, as short as the model allows, so that many fit into a save."""

    def __init__(self, model: nn.Module, size: int, device: torch.device = CPU) -> None:
        """Trains ``model``, which lies on ``device``, on an image of ``size`` x ``size`` pixels."""
        self.model = model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        self._images = torch.randn(1, 3, size, size, device=device)
        self._labels = torch.zeros(1, dtype=torch.long, device=device)
        self.step = timed(self._step, device=device)
        """Makes a step and returns its milliseconds."""

    def _step(self) -> None:
        F.cross_entropy(self.model(self._images), self._labels).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint holds of it."""
        return {
            "format": store.FORMAT,
            "model": self.model.state_dict(),
            "optimizer": named_state(self.optimizer, self.model),
        }


class Saving:
    """Saves of a training's state, each measured in another way, in milliseconds."""

    def __init__(self, training: Training, folder: Path, saver: Saver) -> None:
        self._training, self._folder, self._saver = training, folder, saver
        self._numbers = itertools.count(1)

    def synchronous(self) -> float:
        """Measures until a save in the loop returns, with the file on disk."""
        return timed(lambda: store.save(self._folder, next(self._numbers), self._training.state_dict(), keep=2))()

    def blocked(self) -> float:
        """Measures until a save in the background lets the loop go on."""
        milliseconds = timed(self._hand_over)()
        self._saver.wait()
        return milliseconds

    def on_disk(self) -> float:
        """Measures until a save in the background is complete, with the loop waiting for it."""
        return timed(self._complete)()

    def steps(self) -> float:
        """Measures the training steps that were begun while the thread wrote; returns the middle one."""
        self._hand_over()
        steps = [self._training.step()]
        while not self._saver.wait(timeout=0):
            steps.append(self._training.step())
        return median(steps)

    def pause(self) -> float:
        """Returns the longest time for which the writing thread kept another one from its turn."""
        self._hand_over()
        return longest_pause(self._saver.wait)

    def _complete(self) -> None:
        self._hand_over()
        self._saver.wait()

    def _hand_over(self) -> None:
        self._saver.save(next(self._numbers), self._training.state_dict())


def longest_pause(work: Callable[[], object]) -> float:
    """Returns the longest time between two turns of a thread that sleeps milliseconds, while ``work`` runs."""
    ended, turns = threading.Event(), [perf_counter()]

    def watch() -> None:
        while not ended.is_set():
            sleep(0.001)
            turns.append(perf_counter())

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    ended.set()
    watcher.join()
    return 1000 * max(later - earlier for earlier, later in itertools.pairwise(turns))
