"""Real processes killed while they save: a checkpoint remains that verifies, loads and is of one piece."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoints import store
from engine.checkpoints.background_saver import Saver
from engine.checkpoints.store import newest, read, step_file, verify
from tests.distributed import FORKSERVER, ROOT

MB = 10**6
TENSORS = 30
PHASES = ("writing", "flushing", "publishing", "named", "aliases", "pruning")
"""What a saving process announces: it is about to begin with it."""
LONG = 120.0
"""Seconds after which a test has failed that waits for something."""


class Announcer:
    """Tells the parent which phase begins, and stays at the beginning of the phase ``hold`` of its second save."""

    def __init__(self, phases: Connection, hold: str | None) -> None:
        self._phases, self._hold, self._saves = phases, hold, 0

    def __call__(self, phase: str) -> None:
        self._saves += phase == "writing"
        self._phases.send(phase)
        if self._saves == 2 and phase == self._hold:
            time.sleep(LONG)

    def before(self, module: Any, name: str, phase: str) -> None:
        """Has each call of a module's function announced."""
        original: Callable[..., Any] = getattr(module, name)

        def announced(*args: Any) -> Any:
            self(phase)
            return original(*args)

        setattr(module, name, announced)


def keep_saving(folder: Path, first_step: int, size: int, phases: Connection, hold: str | None) -> None:
    """Saves states of ``size`` bytes one after the other; each tensor of a state holds its step."""
    torch.set_num_threads(1)
    announce = Announcer(phases, hold)
    announce.before(store, "_write", "writing")
    announce.before(os, "fsync", "flushing")
    announce.before(store, "_link", "aliases")
    announce.before(store, "_prune", "pruning")
    publish = store._publish

    def published(aside: Path, path: Path, digest: str) -> None:
        numbered = path.name.startswith("step_")
        if numbered:
            announce("publishing")
        publish(aside, path, digest)
        if numbered:
            announce("named")

    store._publish = published
    saver = Saver(folder, keep=2)
    tensors = [torch.empty(size // TENSORS // 4) for _ in range(TENSORS)]
    for step in range(first_step, 10**6):
        for tensor in tensors:
            tensor.fill_(step)
        saver.save(step, {"format": store.FORMAT, "step": step, "model": tensors}, best=step % 3 == 0)


def kill_while_saving(folder: Path, kills: int, size: int) -> list[str]:
    """Kills ``kills`` processes, each in its second save, and looks after each at what remains.

    Of three, one is killed at a random moment of the time that its first save has taken, one at the beginning of a
    phase where it stays, and one that does not stay a moment after the beginning. Returns the phases last announced.
    """
    chance, done, met = random.Random(size), 0, []
    for kill in range(kills):
        phase, hold = PHASES[kill // 3 % len(PHASES)], kill % 3 == 0
        ours, theirs = FORKSERVER.Pipe(duplex=False)
        inputs = (folder, done + 1, size, theirs, phase if hold else None)
        child = FORKSERVER.Process(target=keep_saving, args=inputs, daemon=True)
        child.start()
        theirs.close()
        try:
            _until(ours, "writing")
            begin = time.monotonic()
            _until(ours, "pruning")
            duration = time.monotonic() - begin
            last = _until(ours, "writing" if kill % 3 == 1 else phase)
            if not hold:
                time.sleep(chance.uniform(0.0, duration if kill % 3 == 1 else 0.01))
        finally:
            child.kill()
            child.join()
        met.append(_last(ours, last))
        done = check(folder, done)
    return met


def _until(phases: Connection, wanted: str) -> str:
    while True:
        assert phases.poll(LONG), f"no {wanted} within {LONG:g} s"
        if phases.recv() == wanted:
            return wanted


def _last(phases: Connection, known: str) -> str:
    """The last phase that a process has announced which has ended."""
    try:
        while True:
            known = phases.recv()
    except EOFError:
        return known


def check(folder: Path, done: int) -> int:
    """The step of the newest checkpoint, which must be whole and newer than ``done``, as every name's must be."""
    warned: list[str] = []
    path = newest(folder, warned.append)
    assert path is not None and not warned, warned
    saved = read(path)
    step = int(saved["step"])
    assert path == step_file(folder, step) and step > done
    assert len(saved["model"]) == TENSORS
    assert all(torch.equal(tensor, torch.full_like(tensor, step)) for tensor in saved["model"])
    assert verify(folder / "last.pt") is None
    assert not (folder / "best.pt").exists() or verify(folder / "best.pt") is None
    return step


def test_killed_while_saving_a_good_checkpoint_remains(tmp_path: Path) -> None:
    met = kill_while_saving(tmp_path, kills=12, size=8 * MB)
    assert len(set(met)) >= 4, met


@pytest.mark.full
def test_killed_fifty_times_while_saving_300_megabytes(tmp_path: Path) -> None:
    assert shutil.disk_usage(tmp_path).free > 2000 * MB, "room for six checkpoints is needed"
    begin = time.monotonic()
    met = kill_while_saving(tmp_path, kills=50, size=300 * MB)
    counts = {phase: met.count(phase) for phase in PHASES}
    print(f"50 kills in {time.monotonic() - begin:.0f} s, in phases {counts}")
    assert all(counts.values()), counts


ONE_SAVE = """
import sys, torch
from pathlib import Path
from engine.checkpoints.background_saver import Saver
saver = Saver(Path(sys.argv[1]), keep=2)
for step in (1, 2, 3):
    saver.save(step, {"format": 1, "model": torch.ones(100_000)}, best=True)
assert saver.close()
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace here; test_checkpoint.py records the same calls")
def test_the_kernel_sees_fsync_rename_fsync(tmp_path: Path) -> None:
    """What the system calls are, in their order, of the third save."""
    folder, trace = tmp_path / "checkpoints", tmp_path / "trace"
    calls = "trace=fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat"
    command = ["strace", "-f", "-y", "-e", calls, "-o", str(trace), sys.executable, "-c", ONE_SAVE, str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "ptrace" in run.stderr and run.returncode:
        pytest.skip(f"strace may not trace here: {run.stderr.splitlines()[0]}")
    assert run.returncode == 0, run.stderr
    lines = [line for line in trace.read_text().splitlines() if str(folder) in line]

    def place(*parts: str) -> int:
        found = [number for number, line in enumerate(lines) if all(part in line for part in parts)]
        assert found, (parts, lines)
        return found[0]

    written = place("fsync(", "step_00000003.pt.part>")
    named = place("rename(", "step_00000003.pt.part", 'step_00000003.pt"')
    removed = place("unlink(", 'step_00000001.pt"')
    folder_synced = [number for number, line in enumerate(lines) if "fsync(" in line and f"{folder}>" in line]
    assert written < named < removed
    assert any(named < number < removed for number in folder_synced)
    for alias in ("last", "best"):
        linked = next(
            n
            for n, line in enumerate(lines)
            if n > named and "link(" in line and f"{alias}.pt.part" in line and "unlink" not in line
        )
        renamed = next(n for n, line in enumerate(lines) if n > linked and "rename(" in line and f'{alias}.pt"' in line)
        assert any(named < number < renamed for number in folder_synced), "its target is on disk before it points there"
        assert any(renamed < number < removed for number in folder_synced)
