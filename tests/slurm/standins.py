"""Stand-ins for srun and scontrol, for what no Slurm on one machine can show, such as GPUs.

The environment says what they do: RECORD names the folder where they keep what they were asked for, STATUS is what srun
ends with, FOLDER the experiment that its ranks open, if any; STATE and PREEMPTED are what scontrol says of the job,
NODES what sinfo says of the partition's nodes.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.distributed import clean_environment

SRUN = """#!/bin/bash
printf '%s\\n' "$@" > "$RECORD/arguments"
env > "$RECORD/environment"
if [[ -n "$FOLDER" ]]; then printf '%s' "$FOLDER" > "$SWIN_FOLDER_NOTE"; fi
exit "$STATUS"
"""
SCONTROL = """#!/bin/bash
case "$1 $2" in
    "show job") echo "JobId=7 JobState=$STATE PreemptTime=$PREEMPTED NumNodes=2 Partition=gpu Features=(null)"; exit ;;
    "show hostnames") tr , '\n' <<<"$3"; exit ;;
    update*) printf '%s ' "$@" > "$RECORD/updated"; kill -KILL "$PPID"; exit ;;  # as Slurm does in the end
esac
printf '%s ' "$@" > "$RECORD/requeued"
kill "$PPID"  # as Slurm does
"""
SINFO = """#!/bin/bash
printf '%s\\n' $NODES
"""


class StandIns:
    """A Slurm job, number 7 on one node, whose record is kept in a folder."""

    def __init__(self, record: Path) -> None:
        self.record = record
        for name, script in (("srun", SRUN), ("scontrol", SCONTROL), ("sinfo", SINFO)):
            (record / name).write_text(script)
            (record / name).chmod(0o755)

    def run(self, command: Sequence[str], variables: Mapping[str, str]) -> tuple[int, str]:
        """Runs the job's script; returns its exit code and output."""
        for name in ("requeued", "updated"):
            (self.record / name).unlink(missing_ok=True)
        job = {"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(self.record), "SLURM_JOB_NUM_NODES": "1"}
        script = {"RECORD": str(self.record), "FOLDER": "", "STATUS": "0", "STATE": "RUNNING", "PREEMPTED": "None"}
        script["NODES"] = ""
        path = {"PATH": os.pathsep.join([str(self.record), os.environ["PATH"]])}
        done = subprocess.run(
            command,
            env=clean_environment({**job, **script, **path, **variables}),
            cwd=self.record,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        return done.returncode, done.stdout

    @property
    def arguments(self) -> list[str]:
        """What srun was asked to do."""
        return (self.record / "arguments").read_text().splitlines()

    @property
    def environment(self) -> dict[str, str]:
        """What srun would hand to the tasks."""
        lines = (self.record / "environment").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    @property
    def requeued(self) -> str:
        return self._said("requeued")

    @property
    def updated(self) -> str:
        return self._said("updated")

    def _said(self, name: str) -> str:
        path = self.record / name
        return path.read_text().strip() if path.exists() else ""
