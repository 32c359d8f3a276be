"""The layout of processes from their environment."""

from __future__ import annotations

import pytest

from engine.distributed.layout import TORCHRUN, Layout, detect_layout
from engine.errors import UserError
from tests.distributed import slurm_environment, torchrun_environment


def test_single_process_without_a_launcher() -> None:
    assert detect_layout({}) == Layout(0, 1, 0, 1, "single")


def test_a_batch_script_without_srun_is_a_single_process() -> None:
    environment = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_NODEID": "0"}
    assert detect_layout(environment).launcher == "single"


def test_torchrun() -> None:
    environment = {**torchrun_environment(5, 8, 29500), "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert detect_layout(environment) == Layout(5, 8, 1, 4, "torchrun")


def test_torchrun_inside_a_slurm_step_wins() -> None:
    environment = {**slurm_environment(0, 2, "7"), **torchrun_environment(3, 4, 29500)}
    assert detect_layout(environment) == Layout(3, 4, 3, 4, "torchrun")


@pytest.mark.parametrize("node, local", [(0, 2), (2, 2), (3, 1)])
def test_slurm_with_unequal_nodes(node: int, local: int) -> None:
    environment = {
        **slurm_environment(0, 7, "7"),
        "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
        "SLURM_NODEID": str(node),
        "SLURM_PROCID": str(2 * node),
    }
    assert detect_layout(environment) == Layout(2 * node, 7, 0, local, "slurm")


def test_ranks_of_a_job_that_submitit_starts_on_this_machine() -> None:
    environment = {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_GLOBALID": "1", "SUBMITIT_LOCAL_LOCALID": "1"}
    left_over = torchrun_environment(0, 3, 29500)  # of the shell in which the job was submitted
    assert detect_layout({**left_over, **environment, "SUBMITIT_LOCAL_NTASKS": "2"}) == Layout(1, 2, 1, 2, "submitit")


@pytest.mark.parametrize("name", TORCHRUN)
def test_half_set_torchrun_names_what_is_missing(name: str) -> None:
    environment = torchrun_environment(0, 2, 29500)
    del environment[name]
    with pytest.raises(UserError, match=rf"but {name} not; start with torchrun"):
        detect_layout(environment)


@pytest.mark.parametrize(
    "wrong",
    [{"RANK": "2"}, {"RANK": "-1"}, {"LOCAL_RANK": "2"}, {"LOCAL_WORLD_SIZE": "3"}, {"WORLD_SIZE": "0"}],
    ids=str,
)
def test_impossible_numbers_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(UserError, match="impossible process layout RANK="):
        detect_layout({**torchrun_environment(1, 2, 29500), **wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {"SLURM_PROCID": "first"},
        {"SLURM_NODEID": "1"},
        {"SLURM_NODEID": "x"},
        {"SLURM_STEP_TASKS_PER_NODE": "2(y3)"},
        {"SLURM_STEP_TASKS_PER_NODE": ""},
    ],
    ids=str,
)
def test_what_is_no_number_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(UserError, match="whole numbers expected, found SLURM_PROCID="):
        detect_layout({**slurm_environment(0, 2, "7"), **wrong})
