"""A profile of a few optimizer steps, as a trace for a browser and as a table."""

from __future__ import annotations

import gzip
import logging
import tempfile
from contextlib import ExitStack
from pathlib import Path

import torch
from torch.autograd.profiler import record_function
from torch.profiler import ProfilerActivity, profile

from engine.config.training import ProfileConfig
from engine.files import write_atomic

log = logging.getLogger(__name__)

TRACE = "profile.pt.trace.json.gz"
"""Its name's end is what TensorBoard's profile plugin looks for."""
TABLE = "profile.txt"
MOST_OPERATORS = 25


class StepProfiler:
    """Profiles the steps that ``config`` names and writes :data:`TRACE` and :data:`TABLE` into ``folder``.

    It only watches: what is computed does not depend on it. A run that goes on behind the first of these steps profiles
    what is left of them.
    """

    def __init__(self, config: ProfileConfig | None, folder: Path) -> None:
        self._first, self._last = config.steps if config is not None else (0, 0)
        self._folder, self._reached = folder, 0
        self._profile: profile | None = None
        self._step = ExitStack()

    def begin(self, step: int, total_steps: int) -> None:
        """Notes that training begins, or goes on, after ``step`` steps of ``total_steps``."""
        wanted = f"training.profile: steps {self._first} to {self._last}"
        if self._last and step >= self._last:
            log.warning("%s are behind step %d, at which this start begins: nothing is profiled", wanted, step)
        elif self._last > total_steps:
            log.warning("%s reach behind the run's end, step %d", wanted, total_steps)
            self._last = total_steps if self._first <= total_steps else 0
        self.reached(step)

    def reached(self, step: int) -> None:
        """Begins, goes on or ends accordingly when ``step`` optimizer steps are done."""
        self._reached = step
        self._step.close()
        if step >= self._last:
            self.close()
        elif step >= self._first - 1:
            if self._profile is None:
                self._first = step + 1
                on_gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
                self._profile = profile(activities=[ProfilerActivity.CPU, *on_gpu])
                self._profile.start()
            self._step.enter_context(record_function(f"ProfilerStep#{step + 1}"))  # by which the plugin knows a step

    def close(self) -> None:
        """Writes what was profiled, if anything was and is not yet written."""
        if self._profile is None:
            return
        self._step.close()
        done, self._profile = self._profile, None
        done.stop()
        try:
            self._write(done)
            log.info("profile: %s (for chrome://tracing or ui.perfetto.dev) and %s", self._folder / TRACE, TABLE)
        except OSError as error:
            log.warning("profile: %s cannot be written: %s; going on without", self._folder, error.strerror or error)

    def _write(self, done: profile) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            plain = Path(scratch, "trace.json")
            done.export_chrome_trace(str(plain))
            write_atomic(self._folder / TRACE, gzip.compress(plain.read_bytes(), mtime=0))
        column = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = done.key_averages().table(sort_by=column, row_limit=MOST_OPERATORS, max_name_column_width=60)
        write_atomic(
            self._folder / TABLE, f"Operators of steps {self._first} to {self._reached}, by {column}.\n{table}\n"
        )
