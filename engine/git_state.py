"""Which code this is: the commit of its clone and what differs from it, also where only a copy of the clone runs."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

from engine.files import read_json

SNAPSHOT_MARKER = ".snapshot.json"
"""In a copy of the code: its hash, and what :func:`git_state` said of the clone when it was made."""


def describe_code(folder: Path) -> dict[str, Any]:
    """Returns ``git``, see :func:`git_state`, and ``snapshot``, the copy's hash; None if ``folder`` is no copy."""
    snapshot = read_json(folder / SNAPSHOT_MARKER, lambda marker: {"git": marker["git"], "snapshot": marker["hash"]})
    return snapshot or {"git": git_state(folder), "snapshot": None}


def git_state(folder: Path) -> dict[str, Any] | None:
    """Returns the commit of the clone ``folder`` and what differs from it; None without git or outside a clone."""
    commit = _git(folder, "rev-parse", "HEAD")
    changed = _git(folder, "status", "--porcelain")
    if commit is None or changed is None:
        return None
    difference = _git(folder, "diff", "HEAD") or ""
    return {
        "commit": commit.strip(),
        "branch": (_git(folder, "rev-parse", "--abbrev-ref", "HEAD") or "").strip(),
        "changed_files": [line[3:] for line in changed.splitlines()],
        "diff_sha256": hashlib.sha256(difference.encode()).hexdigest() if difference else None,
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        command = ["git", "-C", os.fspath(folder), *arguments]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
