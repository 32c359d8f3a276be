"""A process may hold as many connections as the system lets it, and rank 0 says at once where that is too few."""

from __future__ import annotations

import resource
import subprocess
import sys

from tests.distributed import ROOT, clean_environment, torchrun_environment

PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
from engine.commands.entry import exit_on_user_error

def command():
    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], "torch" in sys.modules, flush=True)
    from pathlib import Path
    from engine.distributed.layout import detect_layout
    from engine.commands.session import run_session
    from engine.config.run import DistributedConfig
    import os
    work = lambda ranks, report: 0
    return run_session(work, DistributedConfig(device="cpu"), detect_layout(os.environ), Path("/nonexistent"))

exit_on_user_error(command)
"""


def run(soft: int, hard: int, world_size: int) -> subprocess.CompletedProcess[str]:
    extra = torchrun_environment(0, world_size, 1) if world_size > 1 else {}
    command = [sys.executable, "-c", PROGRAM, str(soft), str(hard)]
    return subprocess.run(
        command, cwd=ROOT, env=clean_environment(extra), capture_output=True, text=True, check=False, timeout=600
    )


def test_the_soft_limit_is_raised_to_the_hard_one_before_torch_is_loaded() -> None:
    hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 4000) if sys.platform == "linux" else 4000
    ended = run(200, hard, 1)
    assert ended.stdout == f"{hard} False\n", ended.stderr
    assert ended.returncode == 0


def test_a_hard_limit_that_is_too_low_is_told_with_the_number_needed() -> None:
    ended = run(200, 1024, 512)
    assert ended.returncode == 2
    assert "may have 1024 files" in ended.stderr and "512 ranks need 1792" in ended.stderr
    assert "ulimit -Hn 1792" in ended.stderr and "LimitNOFILE=1792" in ended.stderr
    assert "Traceback" not in ended.stderr
