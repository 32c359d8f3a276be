"""Keeps a requeued job off the node that failed it, for requeue.sh: ``python -m engine.requeue.exclusion NODE JOB``."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

UNUSABLE = ("down", "drain", "drng", "fail", "maint", "unk", "inval")
"""States of nodes, as sinfo shortens them, that start no job."""
NONE = ("", "(null)")


@dataclass(frozen=True)
class Node:
    """A node of the job's partition, as sinfo tells of it."""

    name: str
    state: str
    features: frozenset[str] = frozenset()

    def serves(self, wanted: Collection[str]) -> bool:
        """Returns whether jobs that want these features can start here."""
        return not self.state.startswith(UNUSABLE) and self.features.issuperset(wanted)


def exclusions(node: str, job: Mapping[str, str], excluded: Sequence[str], nodes: Sequence[Node]) -> list[str]:
    """Returns the nodes that the next start of a job should not use.

    Args:
        node: where it failed.
        job: what ``scontrol show job`` says of it.
        excluded: what it does not use by now.
        nodes: of its partition.

    Raises:
        ValueError: ``node`` cannot be excluded; says why.
    """
    if node in excluded:
        raise ValueError(f"node {node} is excluded already")
    if job.get("ReqNodeList", "") not in NONE:
        raise ValueError(f"node {node} is not excluded: the job names its nodes (--nodelist={job['ReqNodeList']})")
    features = "" if job.get("Features", "") in NONE else job["Features"]
    if re.search(r"[|\[\]!*()]", features):
        raise ValueError(f"node {node} is not excluded: nobody can tell how many nodes --constraint={features} leaves")
    wanted = set(filter(None, re.split("[&,]", features)))
    without = [*excluded, node]
    left = [each.name for each in nodes if each.serves(wanted) and each.name not in without]
    needed = int(job["NumNodes"].partition("-")[0])
    if len(left) < needed:
        raise ValueError(
            f"node {node} is not excluded: that would leave {len(left)} node(s) to a job that needs {needed}"
        )
    return without


def main(arguments: Sequence[str]) -> int:
    """Prints what the job's ExcNodeList is to be; or, to stderr, why it stays as it is. Returns 1 then."""
    node, number = arguments
    try:
        job = dict(re.findall(r"(\S+?)=(\S*)", _slurm("scontrol", "show", "job", "--oneliner", number)))
        listed = job.get("ExcNodeList", "")
        excluded = [] if listed in NONE else _slurm("scontrol", "show", "hostnames", listed).split()
        lines = _slurm("sinfo", "--noheader", "--Node", f"--partition={job['Partition']}", "--format=%N|%t|%f")
        parts = (line.split("|", 2) for line in lines.splitlines())
        nodes = [Node(name, state, frozenset(features.strip().split(","))) for name, state, features in parts]
        print(",".join(exclusions(node, job, excluded, nodes)))
    except (ValueError, KeyError, OSError, subprocess.SubprocessError) as error:
        print(str(error) if type(error) is ValueError else f"node {node} is not excluded: {error!r}", file=sys.stderr)
        return 1
    return 0


def _slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
