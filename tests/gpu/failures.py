"""What a device does to a run that goes wrong, as FAILED.json tells it."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from tests.distributed import Ended
from tests.gpu.findings import Findings
from tests.gpu.runs import configure, failure, run

PATIENCE_SECONDS = 20.0
"""`distributed.timeout_seconds` of the run that hangs: more than what a start of it takes between two signs of life."""


def device_assert(findings: Findings) -> None:
    """An index out of range on the device ends the run, as a fault that another try would meet again."""
    found, ended = _failed(findings, 1, "assert 0 3")
    errors = ("AcceleratorError", "RuntimeError") if findings.device == "cuda" else ("IndexError",)
    findings.check(found.get("exception") in errors, f"FAILED.json names {found.get('exception')}, not {errors[0]}")
    said = f"{found.get('reason')} {found.get('message')} {found.get('traceback')}"
    findings.check(findings.small or "device-side assert" in said, f"FAILED.json does not say what it was: {said}")
    findings.check(found.get("step") in (2, 3), f"FAILED.json names step {found.get('step')}, not 2 (or 3, read late)")
    findings.check(not found.get("retry"), "a device-side assert is to be tried again")
    findings.check([end.returncode for end in ended] == [1], f"exit codes {[end.returncode for end in ended]}")


def hang(findings: Findings) -> None:
    """A rank that waits for ever for the device is named, and both end."""
    found, ended = _failed(findings, 2, "hang 1 3", timeout_seconds=PATIENCE_SECONDS)
    findings.check("hang" in found.get("reason", ""), f"FAILED.json tells of no hang: {found.get('reason')}")
    findings.check(found.get("rank") == 1, f"FAILED.json names rank {found.get('rank')}, not 1")
    findings.check(found.get("retry") is True, "a hang is not to be tried again")
    findings.check("go_wrong" in found.get("traceback", ""), "FAILED.json lacks the stacks of the rank that hangs")
    findings.check([end.returncode for end in ended] == [1, 1], f"exit codes {[end.returncode for end in ended]}")


def _failed(
    findings: Findings, world_size: int, fault: str, **distributed: float
) -> tuple[dict[str, Any], list[Ended]]:
    """FAILED.json and the ends of the ranks of a run with ``fault``."""
    with tempfile.TemporaryDirectory() as name:
        config = configure(Path(name), findings, distributed=distributed)
        begin = time.monotonic()
        ended = run(config, world_size, fault)
        findings.figure("seconds", time.monotonic() - begin)
        found = failure(config)
        findings.figure("class", str(found.get("exception") or found.get("reason")))
        findings.figure("retry", str(found.get("retry")))
        if not found:
            print(*(end.output for end in ended), sep="\n")
    findings.check(bool(found), "there is no FAILED.json")
    return found, ended
