"""Runs stages, each in a process of its own with a time limit, and shows what they found. Imports no torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.files import write_atomic
from engine.process.signals import StopRequest
from tests.environment import ROOT, clean_environment

OUTPUT_LINES = 30
"""Last lines of a stage's output that are shown if it did not pass."""
_KILL_SECONDS, _LOOK_SECONDS = 10.0, 0.05
_WIDTH = 120


@dataclass(frozen=True)
class Stage:
    """One group of checks."""

    name: str
    work: str
    """``module:function``, which is given the stage's :class:`tests.gpu.findings.Findings`."""
    seconds: float
    """Time limit."""
    alone: bool = False
    """Whether it measures time, so that nothing may run beside it."""


@dataclass(frozen=True)
class Result:
    """What came of a stage."""

    stage: str
    outcome: str
    """passed, failed, timed out, or not run."""
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    output: str = ""
    """The end of what it printed, if it did not pass."""


def run_stages(
    stages: Sequence[Stage],
    device: str,
    folder: Path,
    within: float,
    jobs: int = 1,
    told: Callable[[Result], None] = lambda result: None,
    stop: StopRequest | None = None,
) -> list[Result]:
    """Runs all stages: first those that may share the device, ``jobs`` at once, then one by one those that may not.

    Args:
        device: cuda or cpu.
        folder: where each stage keeps its output and findings.
        within: seconds for all of them; a stage whose turn comes later is not run.
        told: called with each result as soon as it is known.
        stop: set by signal handlers: then stages that run are killed, and no other is started.

    Returns:
        The results in the order of the stages, those that share the device first.
    """
    deadline = time.monotonic() + within
    environment = stage_environment(device, os.environ)
    stop = StopRequest() if stop is None else stop  # one that nothing has set is false

    def run(stage: Stage) -> Result:
        left = deadline - time.monotonic()
        if stop.signal is not None:
            return Result(stage.name, "not run", faults=[f"{stop.signal.name} came first"])
        if left <= 0:
            return Result(stage.name, "not run", faults=[f"the {within:g} s for all stages were over"])
        try:
            return run_stage(stage, device, folder, min(left, stage.seconds), environment, stop)
        except OSError as error:
            return Result(stage.name, "failed", faults=[f"cannot be run: {error}"])

    results = []
    for alone, number in ((False, jobs), (True, 1)):
        with ThreadPoolExecutor(number) as pool:
            futures = [pool.submit(run, stage) for stage in stages if stage.alone == alone]
            for future in as_completed(futures):
                told(future.result())
            results += [future.result() for future in futures]
    return results


def stage_environment(device: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What the processes of a stage are given: they see one card, the first, or none for the CPU."""
    first = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"
    unbuffered = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    return clean_environment({"CUDA_VISIBLE_DEVICES": first if device == "cuda" else "", **unbuffered})


def run_stage(
    stage: Stage, device: str, folder: Path, limit: float, environment: Mapping[str, str], stop: StopRequest
) -> Result:
    """Runs one stage for ``limit`` seconds at most; it and all that it started are killed after that, or to stop.

    The stage is told whose end is its own: nobody else would kill it after this process was.
    """
    findings, output = folder / f"{stage.name}.jsonl", folder / f"{stage.name}.txt"
    findings.unlink(missing_ok=True)  # an earlier run's
    arguments = [stage.work, device, str(findings), str(limit), str(os.getpid())]
    command = [sys.executable, "-m", "tests.gpu.findings", *arguments]
    begin = time.monotonic()
    with output.open("wb") as file:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        while (code := process.poll()) is None and not stop and time.monotonic() < begin + limit:
            time.sleep(_LOOK_SECONDS)
        _kill_session(process)
    seconds = time.monotonic() - begin
    figures, faults = read_findings(findings)
    if code is None and stop.signal is not None:
        faults.append(f"stopped by {stop.signal.name} after {seconds:.1f} s")
        return Result(stage.name, "not run", seconds, figures, faults)
    if code is None:
        faults.append(f"still running after {limit:g} s")
    elif code and not faults:
        faults.append(f"ended with exit code {code}")
    outcome = "timed out" if code is None else "failed" if faults else "passed"
    tail = output.read_text(errors="replace").splitlines()[-OUTPUT_LINES:] if faults else []
    return Result(stage.name, outcome, seconds, figures, faults, "\n".join(tail))


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kills what is left of a stage; a process that the kernel does not let go is left behind."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(_KILL_SECONDS)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        pass


def read_findings(file: Path) -> tuple[dict[str, Any], list[str]]:
    """Figures and faults that a stage has written so far, one JSON object a line."""
    figures: dict[str, Any] = {}
    faults: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            entry = json.loads(line)
        except ValueError:  # killed while it wrote
            continue
        if "fault" in entry:
            faults.append(entry["fault"])
        else:
            figures[entry["figure"]] = entry["value"]
    return figures, faults


def table(results: Iterable[Result]) -> str:
    """Stage, outcome, seconds and figures, a block of lines each, and then what was wrong where."""
    results = list(results)
    width = max((len(result.stage) for result in results), default=0)
    lines, indent = [], " " * (width + 22)
    for result in results:
        head = f"{result.stage:{width}}  {result.outcome:9}  {result.seconds:6.1f} s  "
        figures = ", ".join(f"{name} {shown(value)}" for name, value in result.figures.items())
        lines += textwrap.wrap(head + figures, _WIDTH, subsequent_indent=indent, break_on_hyphens=False) or [head]
    for result in results:
        if result.faults:
            lines += ["", f"{result.stage} {result.outcome}:", *(f"  - {fault}" for fault in result.faults)]
            lines += textwrap.indent(result.output, "    | ").splitlines()
    passed = sum(result.outcome == "passed" for result in results)
    return "\n".join([*lines, "", f"{passed} of {len(results)} stages passed"])


def shown(value: Any) -> str:
    """A figure for people: numbers with three digits, or all digits before the point."""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def write_json(file: Path, device: str, results: Iterable[Result]) -> None:
    """Writes all results, also those of a run that goes on."""
    content = {"device": device, "stages": [asdict(result) for result in results]}
    write_atomic(file, json.dumps(content, indent=1) + "\n")
