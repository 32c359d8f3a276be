"""Which GPU a process takes. The variables of jobs are those that Slurm 22.05 sets in batch script and step."""

from __future__ import annotations

import pytest

from engine.distributed.gpus import (
    architecture_fault,
    check_request,
    device_index,
    gpu_count,
    granted_gpus,
    own_slice,
    tasks_on_nodes,
)
from engine.errors import UserError

JOB = {"SLURM_JOB_ID": "812", "SLURM_CLUSTER_NAME": "alps"}
SEVEN = ",".join(f"MIG-{number}" for number in range(7))


@pytest.mark.parametrize(
    ("text", "expected"), [("", 0), ("4", 4), ("a100:4", 4), ("gpu:a100:4", 4), ("a100:3,v100:1", 4), ("none", 0)]
)
def test_gpu_count(text: str, expected: int) -> None:
    assert gpu_count(text) == expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, 0),
        ({"SLURM_GPUS_ON_NODE": "4"}, 4),
        ({"SLURM_GPUS_PER_NODE": "a100:2"}, 2),
        ({"SLURM_GPUS_PER_NODE": "a100:2,v100:1"}, 3),
        ({"SLURM_GPUS_PER_NODE": "0"}, 0),
        ({"SLURM_GPUS_PER_NODE": "0", "SLURM_JOB_GPUS": "0,1"}, 0),  # a step of a job that holds them otherwise
        ({"SLURM_GPUS_PER_NODE": "8", "SLURM_GPUS_ON_NODE": "4"}, 4),
        ({"SLURM_JOB_GPUS": "0,3"}, 2),
    ],
)
def test_granted_gpus(variables: dict[str, str], expected: int) -> None:
    assert granted_gpus({**JOB, **variables}) == expected
    assert granted_gpus(variables) == 0, "outside a job"


def batch(tasks: str = "", gpus: int = 0, nodes: int = 1, **more: str) -> dict[str, str]:
    """The variables of a batch script; ``tasks`` as in SLURM_TASKS_PER_NODE, where tasks were asked for."""
    given = {"SLURM_GPUS_ON_NODE": str(gpus), "SLURM_JOB_GPUS": ",".join(map(str, range(gpus)))} if gpus else {}
    return {**JOB, "SLURM_JOB_NUM_NODES": str(nodes), "SLURM_TASKS_PER_NODE": tasks, **given, **more}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (batch("8"), [1]),  # of an exclusive node's eight cores; srun starts one task
        (batch("4", SLURM_NTASKS="4"), [4]),
        (batch("7,1", nodes=2, SLURM_NTASKS="8"), [7, 1]),
        (batch("2(x2)", nodes=2, SLURM_NTASKS="4", SLURM_NTASKS_PER_NODE="2"), [2, 2]),
        (batch("", nodes=2, SLURM_NTASKS="3"), [2, 1]),
    ],
)
def test_tasks_on_nodes(variables: dict[str, str], expected: list[int]) -> None:
    assert tasks_on_nodes(variables) == expected


FOUR = {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4"}


@pytest.mark.parametrize(
    ("variables", "hidden", "note"),
    [
        (batch("1"), "", ""),  # no GPU at all
        (batch("4", 4, SLURM_GPUS_PER_NODE="4", **FOUR), "", ""),
        (batch("4", 4, **FOUR), "", ""),  # --gres=gpu:4
        (batch("4", 4, SLURM_GPUS_PER_NODE="8", **FOUR), "SLURM_GPUS_PER_NODE", ""),  # --gres=gpu:4 over a line of 8
        (batch("4", 8, SLURM_GPUS_PER_NODE="4", **FOUR), "", "holds 8 GPU(s) on this node and uses 4"),  # --exclusive
        (batch("4", 4, SLURM_GPUS="4", SLURM_NTASKS="4"), "", ""),  # --gpus=4 --ntasks=4
        (batch("4(x2)", 4, 2, SLURM_GPUS="8", SLURM_NTASKS="8", SLURM_NTASKS_PER_NODE="4"), "", ""),
        (batch("4", 4, SLURM_GPUS_PER_TASK="1", SLURM_NTASKS="4"), "", ""),
        (batch("2(x2)", 2, 2, SLURM_GPUS_PER_TASK="1", SLURM_NTASKS="4", SLURM_NTASKS_PER_NODE="2"), "", ""),
        (batch("2", 2, SLURM_GPUS_PER_NODE="2", SLURM_NTASKS="2", SLURM_NTASKS_PER_GPU="1"), "", ""),
        (batch("7", 7, SLURM_NTASKS="7"), "", ""),  # seven MIG slices
        (
            {**JOB, "SLURM_GPUS_PER_NODE": "8", "SLURM_NTASKS_PER_NODE": "8", "SLURM_NTASKS": "8"},
            "",
            "",
        ),  # an old Slurm
    ],
)
def test_every_way_to_ask_for_gpus_works(variables: dict[str, str], hidden: str, note: str) -> None:
    found = check_request(variables)
    assert found[0] == hidden
    assert (note in found[1]) if note else not found[1]


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        (batch("1", 4, SLURM_NTASKS="1"), 'the line "#SBATCH --ntasks-per-node=..." to 4, or ask for 1 GPU(s)'),
        (batch("1", 4, SLURM_GPUS_PER_NODE="8", SLURM_NTASKS="1"), '=..." to 4, or ask for 1 GPU(s)'),  # --gres=gpu:4
        (batch("8", 4), "1 task(s) but 4 GPU(s) on each node"),  # --exclusive
        (batch("2", 4, SLURM_GPUS_PER_TASK="2", SLURM_NTASKS="2"), 'the line "#SBATCH --gpus-per-task=2" to 1'),
        (batch("7,1", 4, 2, SLURM_GPUS="8", SLURM_NTASKS="8"), 'set the line "#SBATCH --ntasks-per-node=4"'),
        (
            batch("2(x2)", 3, 2, SLURM_GPUS="4", SLURM_NTASKS="4", SLURM_NTASKS_PER_NODE="2"),
            'in place of --gpus set the line "#SBATCH --gpus-per-node=2"',
        ),
        (batch("4", 4, SLURM_GPUS_PER_NODE="0", **FOUR), 'set the line "#SBATCH --gpus-per-node=4" in their place'),
        (
            batch("2(x2)", nodes=2, SLURM_NTASKS="3", SLURM_NTASKS_PER_NODE="2"),
            'the line "#SBATCH --ntasks-per-node=2"',
        ),
    ],
)
def test_what_would_leave_gpus_idle_or_shared_is_refused_with_the_line_to_change(
    variables: dict[str, str], line: str
) -> None:
    with pytest.raises(UserError) as caught:
        check_request(variables)
    assert line in str(caught.value)


# -- in a rank -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [None, None]),
        ("0,1,2,3", [None, None]),
        ("GPU-a,GPU-b", [None, None]),  # whole cards by name: CUDA shows them all
        ("MIG-a", [None, None]),
        ("MIG-a,MIG-b", ["MIG-a", "MIG-b"]),
        ("MIG-GPU-x/1/0, MIG-GPU-x/2/0", ["MIG-GPU-x/1/0", "MIG-GPU-x/2/0"]),
    ],
)
def test_each_process_takes_its_own_slice(visible: str | None, expected: list[str | None]) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert [own_slice(environment, rank, 2) for rank in range(2)] == expected


def test_fewer_slices_than_processes_are_refused() -> None:
    assert own_slice({"CUDA_VISIBLE_DEVICES": SEVEN}, 6, 7) == "MIG-6"
    with pytest.raises(UserError, match="8 processes on this node, but CUDA_VISIBLE_DEVICES lists 7 MIG slices"):
        own_slice({"CUDA_VISIBLE_DEVICES": SEVEN}, 0, 8)


ON_FOUR = {**JOB, "SLURM_GPUS_ON_NODE": "4"}


@pytest.mark.parametrize(
    ("visible", "local_rank", "count", "slurm", "environment", "expected"),
    [
        (4, 2, 4, True, {**ON_FOUR, "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, 2),
        (4, 2, 4, False, {}, 2),
        (1, 3, 4, True, {**ON_FOUR, "SLURM_GPUS_PER_TASK": "1", "CUDA_VISIBLE_DEVICES": "3"}, 0),
        (1, 3, 4, True, {**ON_FOUR, "SLURM_GPUS_PER_TASK": "1", "CUDA_VISIBLE_DEVICES": "MIG-d"}, 0),
        (1, 3, 4, True, {}, 0),  # nothing is said of what was granted
        (1, 0, 1, True, {**JOB, "SLURM_GPUS_ON_NODE": "1", "CUDA_VISIBLE_DEVICES": "2"}, 0),
        (1, 3, 4, True, {**JOB, "SLURM_GPUS_ON_NODE": "1"}, "start 1 processes here (the line #SBATCH --ntasks-per"),
        (1, 1, 2, True, {**ON_FOUR, "CUDA_VISIBLE_DEVICES": "0,1"}, "but torch sees 1 GPUs"),  # slices by number
        (1, 1, 2, False, {"CUDA_VISIBLE_DEVICES": "0"}, "2 processes on this node, but torch sees 1 GPUs"),
        (2, 3, 4, True, {**ON_FOUR, "SLURM_GPU_BIND": "closest"}, ", remove --gpu-bind, or set"),
    ],
)
def test_the_number_of_a_processs_gpu(
    visible: int, local_rank: int, count: int, slurm: bool, environment: dict[str, str], expected: int | str
) -> None:
    if isinstance(expected, int):
        assert device_index(visible, local_rank, count, slurm, environment) == expected
        return
    with pytest.raises(UserError) as caught:
        device_index(visible, local_rank, count, slurm, environment)
    assert expected in str(caught.value)


CU126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
CU130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("capability", "built_for", "age"),
    [
        ((8, 0), CU126, None),
        ((8, 9), CU126, None),  # code for an earlier minor number of the same major one
        ((6, 1), CU126, None),
        ((9, 0), ["sm_80", "compute_80"], None),  # PTX is compiled for later cards
        ((12, 1), CU130, None),
        ((13, 0), CU130, None),
        ((10, 3), ["sm_100f"], None),
        ((9, 0), ["gfx90a"], None),  # of AMD
        ((9, 0), [], None),
        ((12, 0), CU126, "a newer CUDA"),
        ((10, 0), CU126, "a newer CUDA"),
        ((7, 0), CU130, "an older CUDA"),
        ((3, 7), CU126, "an older CUDA"),
        ((8, 0), ["sm_86"], "an older CUDA"),
        ((10, 0), ["sm_90a", "compute_90a"], "a newer CUDA"),  # an `a` serves that architecture alone
        ((10, 3), ["sm_100a"], "a newer CUDA"),
    ],
)
def test_a_card_that_torch_has_no_code_for_is_named(
    capability: tuple[int, int], built_for: list[str], age: str | None
) -> None:
    fault = architecture_fault("Tesla X", capability, built_for)
    if age is None:
        assert fault is None
    else:
        assert fault is not None
        told = (f"Tesla X has compute capability {capability[0]}.{capability[1]}", built_for[0], age, "TORCH_INDEX")
        assert all(part in fault for part in told)
