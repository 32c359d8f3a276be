"""The harness of all benchmarks: interleaved rounds, medians, the table, the machine's name."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

CPU = torch.device("cpu")

Samples = dict[str, dict[str, list[float]]]
"""Measured values: row -> column -> one value a round."""


@dataclass
class Table:
    """One benchmark's result."""

    name: str
    title: str
    unit: str
    samples: Samples
    ratios: dict[str, dict[str, float]] = field(default_factory=dict)
    """Derived figures below the table: row -> column -> factor."""
    notes: dict[str, str] = field(default_factory=dict)
    """What is said of a row, which may have no values."""

    def medians(self) -> dict[str, dict[str, float]]:
        """Returns the middle value of each cell."""
        return {
            row: {column: median(values) for column, values in cells.items()} for row, cells in self.samples.items()
        }

    def compare_columns(self, over: str, under: str, shown: str) -> None:
        """Adds the ratio of two columns, below the column ``shown``, for each row that has both."""
        for row, cells in self.medians().items():
            if over in cells and under in cells:
                self.ratios[f"{row}: {over} / {under}"] = {shown: cells[over] / cells[under]}

    def compare_rows(self, over: str, under: str, columns: Iterable[str], title: str | None = None) -> None:
        """Adds the ratio of two rows in each of ``columns``."""
        cells = self.medians()
        self.ratios[title or f"{over} / {under}"] = {name: cells[over][name] / cells[under][name] for name in columns}

    def text(self) -> str:
        """Formats the table for people: medians, then ratios, then where it was measured."""
        columns = list(dict.fromkeys(column for cells in self.samples.values() for column in cells))
        counts = sorted({len(values) for cells in self.samples.values() for values in cells.values()})
        rounds = " or ".join(map(str, counts))
        width = max(len(row) for row in [*self.samples, *self.ratios])
        lines = [f"{self.title}: {self.unit}, median of {rounds} interleaved rounds"]
        lines.append("  ".join([" " * width, *columns]))
        for rows, form in ((self.medians(), ".1f"), (self.ratios, ".2f")):
            for row, cells in rows.items():
                values = [f"{cells[c]:{form}}" if c in cells else "-" for c in columns]
                aligned = [value.rjust(len(column)) for value, column in zip(values, columns, strict=True)]
                lines.append("  ".join([row.ljust(width), *aligned]))
            lines.append("")
        lines += [f"{row}: {note}" for row, note in self.notes.items()] + [""] * bool(self.notes)
        return "\n".join([*lines, f"on {', '.join(f'{key} {value}' for key, value in machine().items())}"])

    def as_dict(self) -> dict[str, object]:
        """Returns everything, for a JSON file."""
        return {**asdict(self), "medians": self.medians(), "machine": machine()}


def interleaved(work: Mapping[tuple[str, str], Callable[[], float]], rounds: int) -> Samples:
    """Measures everything once a round, so that a busy minute of the machine meets all alike.

    Args:
        work: (row, column) -> what measures itself once and returns the value.
        rounds: How often, after one round that warms up and does not count.
    """
    samples: Samples = {}
    for counted in [False] + [True] * rounds:
        for (row, column), measure in work.items():
            value = measure()
            if counted:
                samples.setdefault(row, {}).setdefault(column, []).append(value)
    return samples


def timed(work: Callable[[], Any], calls: int = 1, device: torch.device = CPU) -> Callable[[], float]:
    """Returns a measurement of the milliseconds of one call of ``work``: the mean of ``calls``, until all is done."""

    def measure() -> float:
        start = perf_counter()
        for _ in range(calls):
            work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (perf_counter() - start) * 1000 / calls

    return measure


def image_rate(step: Callable[[], Any], images: int, device: torch.device, steps: int = 1) -> Callable[[], float]:
    """Returns a measurement of the images a second of ``steps`` steps of ``images`` each."""
    milliseconds = timed(step, steps, device)
    return lambda: 1000 * images / milliseconds()


def run_benchmark(name: str, quick: bool) -> Table:
    """Runs a benchmark, which is a module of this package; ``quick``: of the smallest size, to see that it works."""
    return importlib.import_module(f"tools.bench.{name}").run(quick=quick)


def machine() -> dict[str, str | int]:
    """Describes processor, cores that torch uses, and versions."""
    return {
        "cpu": _processor(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    """Reads the model's name from the file where Linux has it; other systems have it in `platform`."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    if "model name" not in facts:
        return platform.processor() or platform.machine()
    features = facts.get("flags", "").split()
    special = [name for name in ("avx2", "avx512f", "amx_bf16") if name in features]
    return f"{facts['model name']} ({' '.join(special)})"
