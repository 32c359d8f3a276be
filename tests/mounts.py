"""File systems of a size, for one process."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def with_tmpfs(place: Path, size: str) -> list[str]:
    """Returns what to put before a command that is to have a file system in memory at ``place``, of ``size``: 1m, 64k.

    Skips the test where nobody may mount one.
    """
    command = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs -o size={size} tmpfs "$0" && exec "$@"', str(place)]
    if os.geteuid() != 0 or not shutil.which("unshare") or subprocess.run([*command, "true"]).returncode:
        pytest.skip("needs root, who may mount a file system")
    return command
