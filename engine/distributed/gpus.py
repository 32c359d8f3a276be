"""Which GPU a process takes: what Slurm gave the job, what CUDA shows of it, and whether torch has code for it.

Imports no torch: ``python -m engine.distributed.gpus``, which launch scripts run before they start the ranks, says
within a moment what cannot work.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence

from engine.distributed.slurm import expand_counts, job_name
from engine.errors import EXIT_USER_ERROR, UserError

_BUILT_FOR = re.compile(r"(?P<kind>sm|compute)_(?P<major>\d+)(?P<minor>\d)(?P<only>[af]?)$")


def gpu_count(text: str) -> int:
    """Returns the number of GPUs in Slurm's ``4``, ``a100:4`` or ``a100:2,v100:1``; 0 for an empty text."""
    return sum(int(match[1]) for part in text.split(",") if (match := re.search(r"(\d+)$", part.strip())))


def granted_gpus(environment: Mapping[str, str] = os.environ) -> int:
    """Returns the number of GPUs that Slurm gave this job on this node; 0 outside Slurm."""
    if job_name(environment) is None:
        return 0
    counts = environment.get("SLURM_GPUS_ON_NODE") or environment.get("SLURM_GPUS_PER_NODE") or ""
    indices = environment.get("SLURM_STEP_GPUS") or environment.get("SLURM_JOB_GPUS") or ""
    return gpu_count(counts) if counts else len(list(filter(None, indices.split(","))))


# -- before the ranks start ------------------------------------------------------------------------------------------


def tasks_on_nodes(environment: Mapping[str, str]) -> list[int]:
    """Returns how many tasks srun will start on each node of a job, by the variables of its batch script."""
    nodes = int(environment.get("SLURM_JOB_NUM_NODES") or 1)
    if each := environment.get("SLURM_NTASKS_PER_NODE"):
        return [int(each)] * nodes
    if total := environment.get("SLURM_NTASKS"):
        counts = expand_counts(environment.get("SLURM_TASKS_PER_NODE", ""))
        each_gets, rest = divmod(int(total), nodes)
        return counts if sum(counts) == int(total) else [each_gets + (number < rest) for number in range(nodes)]
    return [1] * nodes


def check_request(environment: Mapping[str, str]) -> tuple[str, str]:
    """Checks, in a job's batch script, that every GPU has its task and every node as many as any other.

    Returns:
        A variable to remove before srun, its ``--gpus-per-node`` where the job got its GPUs by another option, or an
        empty text; and a line on what the job holds and does not use, or an empty text.

    Raises:
        UserError: that is not so; it names the line to change.
    """
    tasks, nodes = tasks_on_nodes(environment), int(environment.get("SLURM_JOB_NUM_NODES") or 1)
    total = int(environment.get("SLURM_NTASKS") or sum(tasks))
    here = granted_gpus(environment)
    asked = environment.get("SLURM_GPUS_PER_NODE") or ""
    if asked and gpu_count(asked) == 0 and here:
        raise UserError(
            f"--gpus-per-node=0, but Slurm gave the job {here} GPU(s) on this node (by --gres, --gpus or --exclusive): "
            f'set the line "#SBATCH --gpus-per-node={here}" in their place, or remove what asks for them'
        )
    gpus = min(here, gpu_count(asked)) if asked else here
    if len(set(tasks)) > 1 or sum(tasks) != total:
        each = gpus or -(-total // nodes)
        raise UserError(
            f"{total} task(s) on {nodes} node(s): every node takes as many; remove --ntasks and set the line "
            f'"#SBATCH --ntasks-per-node={each}"'
        )
    in_all = gpu_count(environment.get("SLURM_GPUS") or "")
    if in_all and in_all != here * nodes:
        raise UserError(
            f"--gpus={environment['SLURM_GPUS']} on {nodes} node(s), {here} of them on this one: every node takes as "
            f'many; in place of --gpus set the line "#SBATCH --gpus-per-node={max(1, in_all // nodes)}"'
        )
    if gpus and gpus != tasks[0]:
        raise UserError(
            f"{tasks[0]} task(s) but {gpus} GPU(s) on each node, and every GPU takes one task: "
            f"{_line_to_change(environment, tasks[0], gpus)}"
        )
    if asked and here > gpus:
        return "", f"the job holds {here} GPU(s) on this node and uses {gpus}, as --gpus-per-node={asked} says"
    return "SLURM_GPUS_PER_NODE" if asked and here < gpu_count(asked) else "", ""


def _line_to_change(environment: Mapping[str, str], tasks: int, gpus: int) -> str:
    line = f'"#SBATCH --ntasks-per-node={environment.get("SLURM_NTASKS_PER_NODE", "...")}"'
    if per_task := environment.get("SLURM_GPUS_PER_TASK"):
        return f'change the line "#SBATCH --gpus-per-task={per_task}" to 1'
    asked = environment.get("SLURM_GPUS_PER_NODE", "")
    if gpu_count(asked) == gpus:
        return f'change the line {line} to {gpus}, or "#SBATCH --gpus-per-node={asked}" to {tasks}'
    return f"change the line {line} to {gpus}, or ask for {tasks} GPU(s)"


# -- in a rank -------------------------------------------------------------------------------------------------------


def visible_entries(environment: Mapping[str, str]) -> list[str]:
    """Returns what CUDA_VISIBLE_DEVICES lists; empty where it is not set."""
    return [entry.strip() for entry in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry.strip()]


def is_slice(entry: str) -> bool:
    """Returns whether an entry of CUDA_VISIBLE_DEVICES is a MIG slice of a GPU."""
    return entry.startswith("MIG-")


def own_slice(environment: Mapping[str, str], local_rank: int, local_world_size: int) -> str | None:
    """Returns this process's MIG slice, to be all that CUDA_VISIBLE_DEVICES lists; None if nothing is to change.

    CUDA shows a process one slice, the first that is listed, however many there are.

    Raises:
        UserError: there are fewer slices than processes on this node.
    """
    entries = visible_entries(environment)
    if len(entries) < 2 or not is_slice(entries[0]):
        return None
    if len(entries) < local_world_size:
        raise UserError(
            f"{local_world_size} processes on this node, but CUDA_VISIBLE_DEVICES lists {len(entries)} MIG slices; "
            f"start {len(entries)} processes here"
        )
    return entries[local_rank]


def device_index(
    visible: int, local_rank: int, local_world_size: int, slurm: bool, environment: Mapping[str, str]
) -> int:
    """Returns the number of this process's GPU among the ``visible`` ones that CUDA shows it.

    Args:
        slurm: whether srun started it, which may show each task its own GPU alone (``--gpus-per-task``), as number 0.

    Raises:
        UserError: there are fewer GPUs than processes on this node.
    """
    shared = len(visible_entries(environment)) > 1 or 0 < granted_gpus(environment) < local_world_size
    if visible == 1 and slurm and not shared:
        return 0
    if local_world_size > visible:
        line = f" (the line #SBATCH --ntasks-per-node={visible})" if slurm else ""
        bound = ", remove --gpu-bind" if "SLURM_GPU_BIND" in environment else ""
        raise UserError(
            f"{local_world_size} processes on this node, but torch sees {visible} GPUs; "
            f"start {visible} processes here{line}{bound}, or set distributed.device=cpu"
        )
    return local_rank


def architecture_fault(name: str, capability: tuple[int, int], built_for: Sequence[str]) -> str | None:
    """Says what is wrong with a card that torch has no code for, where CUDA would say "no kernel image".

    Args:
        name: of the card.
        capability: its compute capability, such as (8, 0).
        built_for: ``torch.cuda.get_arch_list()``. Binary code (``sm_80``) runs on cards of the same major number and an
            equal or greater minor one, PTX (``compute_80``) on all later ones; ``a`` at the end means that one alone.

    Returns:
        A message; None if the card can be used, or the list names no architectures of CUDA.
    """
    parsed = [match for text in built_for if (match := _BUILT_FOR.match(text))]
    if not parsed or any(_serves(match, capability) for match in parsed):
        return None
    newest = max((int(match["major"]), int(match["minor"])) for match in parsed)
    age = "newer" if capability > newest else "older"
    return (
        f"{name} has compute capability {capability[0]}.{capability[1]}, but this torch is built for "
        f"{', '.join(built_for)}; install one that is built for a{'n' if age == 'older' else ''} {age} CUDA: "
        "make install TORCH_INDEX=..., see docs/clusters.md"
    )


def _serves(match: re.Match[str], capability: tuple[int, int]) -> bool:
    built = int(match["major"]), int(match["minor"])
    if match["only"] == "a":
        return built == capability
    if match["kind"] == "compute" and not match["only"]:
        return built <= capability
    return built[0] == capability[0] and built[1] <= capability[1]


def main() -> int:
    """Checks the request of the job that this runs in; prints the variable that srun must not see, if any."""
    try:
        variable, note = check_request(os.environ)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    if note:
        print(f"note: {note}", file=sys.stderr)
    print(variable)
    return 0


if __name__ == "__main__":
    sys.exit(main())
