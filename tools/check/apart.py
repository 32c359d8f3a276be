"""Runs a rehearsal in a process of its own, and says what became of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.config.load import dump_config
from engine.config.run import RunConfig
from engine.files import read_json, write_json
from tools.check.measure import Request


def rehearse_apart(config: RunConfig, request: Request) -> dict[str, Any]:
    """Returns what :func:`tools.check.measure.rehearse` does; where its process dies, an error that says of what."""
    patience = config.distributed.start_timeout_seconds
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "config.yaml").write_text(dump_config(config), encoding="utf-8")
        asked = {**asdict(request), "config": str(place / "config.yaml"), "begun": time.time()}
        write_json(place / "request.json", asked)
        command = [sys.executable, "-m", "tools.check.measure", str(place / "request.json"), str(place / "result.json")]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
        except subprocess.TimeoutExpired:
            text = f"rehearsal: not done after {patience:g} s (distributed.start_timeout_seconds)"
            return {"errors": [text], "warnings": []}
        found = read_json(place / "result.json")
    if found is not None and done.returncode == 0:
        return found
    if done.returncode == -signal.SIGKILL:
        return {"errors": [], "warnings": [], "out_of_memory": "its process was killed, as the kernel does"}
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return {"errors": [f"rehearsal: training would fail: {last}"], "warnings": [], "traceback": done.stderr}
