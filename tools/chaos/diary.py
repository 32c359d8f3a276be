"""What the ranks of one start were fed: a file a rank with a line for each micro-step, readable while it is written."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.data.batch_plan import Draw

FOLDER = "SWIN_CHAOS_DIARY"
"""Environment variable that names the folder of a start's diaries. All its processes inherit it and are known by it."""


@dataclass(frozen=True)
class Epoch:
    """What an epoch has to be by a run's settings, said here once more: the engine's own cut of it is under test."""

    num_samples: int
    global_batch_size: int
    drop_last: bool

    @property
    def used(self) -> int:
        """Returns how many of its positions are trained on."""
        return self.num_samples - (self.num_samples % self.global_batch_size if self.drop_last else 0)

    @property
    def steps(self) -> int:
        """Returns its optimizer steps."""
        return -(-self.used // self.global_batch_size)


@dataclass(frozen=True)
class Fed:
    """One call of the training step."""

    step: int
    """As the training loop counts, from 0."""
    micro_step: int
    rank: int
    reader: int
    """The process that read the samples."""
    draws: tuple[Draw, ...]

    @property
    def place(self) -> tuple[int, int, int]:
        """Names what no two calls of one uninterrupted run have in common."""
        return self.step, self.micro_step, self.rank


class DiaryWriter:
    """One rank's diary. Each line is one write, so that a killed process leaves whole lines, but for the last one."""

    def __init__(self, folder: Path, rank: int, epoch: Epoch) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(diary_file(folder, rank), os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY, 0o644)
        self._append(asdict(epoch))

    def fed(self, step: int, micro_step: int, reader: int, draws: Sequence[Sequence[int]]) -> None:
        """Notes ``draws``: index, epoch and position of each sample."""
        self._append({"step": step, "micro_step": micro_step, "reader": reader, "draws": draws})

    def _append(self, entry: dict[str, object]) -> None:
        os.write(self._file, json.dumps(entry).encode() + b"\n")


class Diaries:
    """The diaries of all ranks of one start, followed while they are written."""

    def __init__(self, folder: Path, ranks: int) -> None:
        self._files = {diary_file(folder, rank): 0 for rank in range(ranks)}
        """With how many bytes of each have been read."""
        self._fed: list[list[Fed]] = [[] for _ in range(ranks)]
        self.epoch: Epoch | None = None
        """What each epoch has to be; None if no rank has come so far."""

    def read(self) -> Diaries:
        """Takes in what has been written since the last call; a line that is not whole waits for the next."""
        for rank, (path, offset) in enumerate(self._files.items()):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                file.seek(offset)
                new = file.read()
                whole = new[: new.rfind(b"\n") + 1]
                self._files[path] += len(whole)
                for entry in map(json.loads, whole.splitlines()):
                    if "draws" in entry:
                        draws = tuple(Draw(*draw) for draw in entry.pop("draws"))
                        self._fed[rank].append(Fed(rank=rank, draws=draws, **entry))
                    else:
                        self.epoch = Epoch(**entry)
        return self

    @property
    def fed(self) -> Iterable[Fed]:
        """Chains all that was written so far, rank after rank."""
        return itertools.chain(*self._fed)

    @property
    def step(self) -> int | None:
        """Returns the furthest step that a rank has begun."""
        return max((fed[-1].step for fed in self._fed if fed), default=None)

    @property
    def first_step(self) -> int | None:
        """Returns the step that this start began with."""
        return min((fed[0].step for fed in self._fed if fed), default=None)

    def readers(self, rank: int) -> list[int]:
        """Returns the processes that have read samples for ``rank``."""
        return sorted({entry.reader for entry in self._fed[rank]})


def diary_file(folder: Path, rank: int) -> Path:
    """Returns the file in which a rank of a start writes its diary."""
    return folder / f"rank_{rank}.jsonl"
