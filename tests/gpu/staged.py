"""Stages for the runner's test: a good one, and each way to go wrong. Imports no torch."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from tests.gpu.findings import Findings


def good(findings: Findings) -> None:
    findings.figure("device", findings.device)
    findings.figure("card", os.environ["CUDA_VISIBLE_DEVICES"] or "none")
    findings.figure("images/s", 1234.5)
    findings.check(True, "never")


def wrong(findings: Findings) -> None:
    findings.check(False, "two is not three")
    with findings.part("inner"):
        raise ValueError("a part of it")
    findings.figure("after", 7)
    print("words of a stage")


def raises(findings: Findings) -> None:
    raise KeyError("the whole of it")


def crashes(findings: Findings) -> None:
    findings.figure("before", 1)
    os.abort()


def hangs(findings: Findings) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    findings.figure("child", child.pid)
    time.sleep(3600)
