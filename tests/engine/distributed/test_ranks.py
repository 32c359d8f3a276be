"""The layout of processes from their environment, and what real groups of them tell each other."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.config.section import load_config
from engine.config.sections import DistributedConfig, RunConfig
from engine.distributed.ranks import TORCHRUN, Layout, Ranks, choose_backend, choose_device, connect, detect_layout
from engine.distributed.rendezvous import meeting_name
from engine.errors import UserError
from tests.distributed import run_ranks, slurm_environment, torchrun_environment

CPU = DistributedConfig(device="cpu")


# -- layouts ---------------------------------------------------------------------------------------------------------


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


# -- devices ---------------------------------------------------------------------------------------------------------


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_arch_list", list)


def test_device_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(monkeypatch, 0)
    assert choose_device(DistributedConfig(), Layout()) == torch.device("cpu")
    with pytest.raises(UserError, match=r"distributed\.device: cuda is asked for"):
        choose_device(DistributedConfig(device="cuda"), Layout())


def test_each_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(monkeypatch, 4)
    layout = Layout(6, 8, 2, 4, "torchrun")
    assert choose_device(DistributedConfig(), layout) == torch.device("cuda", 2)
    assert choose_device(CPU, layout) == torch.device("cpu")


def test_fewer_gpus_than_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(monkeypatch, 2)
    with pytest.raises(UserError, match="3 processes on this node, but torch sees 2 GPUs"):
        choose_device(DistributedConfig(), Layout(0, 3, 0, 3, "torchrun"))


def test_a_slurm_task_that_sees_only_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(monkeypatch, 1)
    assert choose_device(DistributedConfig(), Layout(3, 4, 3, 4, "slurm")) == torch.device("cuda", 0)


@pytest.mark.parametrize("launcher", ["slurm", "torchrun"])
def test_each_of_seven_processes_takes_its_slice_of_a_card(monkeypatch: pytest.MonkeyPatch, launcher: str) -> None:
    """CUDA reads the variable once, when it is first asked for anything, and then shows one slice."""
    taken = []
    pretend_gpus(monkeypatch, 1)
    for rank in range(7):
        environment = {"CUDA_VISIBLE_DEVICES": ",".join(f"MIG-{number}" for number in range(7))}
        monkeypatch.setattr(torch.cuda, "is_available", lambda own=environment: "," not in own["CUDA_VISIBLE_DEVICES"])
        device = choose_device(DistributedConfig(), Layout(rank, 7, rank, 7, launcher), environment)
        assert device == torch.device("cuda", 0)
        assert choose_backend(DistributedConfig(), device, environment) == "gloo"  # NCCL takes them for one GPU
        taken.append(environment["CUDA_VISIBLE_DEVICES"])
    assert taken == [f"MIG-{number}" for number in range(7)]


def test_nccl_connects_whole_gpus() -> None:
    gpu = torch.device("cuda", 1)
    assert choose_backend(DistributedConfig(), gpu, {"CUDA_VISIBLE_DEVICES": "0,1"}) == "nccl"
    assert choose_backend(DistributedConfig(backend="gloo"), gpu, {}) == "gloo"
    assert choose_backend(DistributedConfig(backend="nccl"), gpu, {"CUDA_VISIBLE_DEVICES": "MIG-a"}) == "nccl"
    assert choose_backend(DistributedConfig(), torch.device("cpu"), {}) == "gloo"


def test_a_card_without_code_for_it_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(monkeypatch, 2)
    cards = {0: ("NVIDIA A100", (8, 0)), 1: ("Tesla V100", (7, 0))}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: cards[index][0])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: cards[index][1])
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90", "compute_90"])
    assert choose_device(DistributedConfig(), Layout(0, 2, 0, 2, "torchrun")) == torch.device("cuda", 0)
    with pytest.raises(UserError, match=r"Tesla V100 has compute capability 7\.0, but this torch is built for sm_75"):
        choose_device(DistributedConfig(), Layout(1, 2, 1, 2, "torchrun"))
    assert choose_device(CPU, Layout(1, 2, 1, 2, "torchrun")) == torch.device("cpu")


def test_a_gpu_that_slurm_granted_and_torch_does_not_see_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("SLURM_JOB_ID", "812")
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "2")
    with pytest.raises(UserError, match=r"granted this job 2 GPU\(s\) on this node, but torch .* sees none"):
        choose_device(DistributedConfig(), Layout())
    assert choose_device(CPU, Layout()) == torch.device("cpu")
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "0")
    assert choose_device(DistributedConfig(), Layout()) == torch.device("cpu")


def test_a_gpu_that_is_named_and_not_seen_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for entries, told in (("0,1", True), ("", False)):
        caplog.clear()
        assert choose_device(DistributedConfig(), Layout(), {"CUDA_VISIBLE_DEVICES": entries}).type == "cpu"
        assert ("CUDA_VISIBLE_DEVICES=0,1, but torch sees no GPU" in caplog.text) == told


def test_nccl_without_gpus_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = DistributedConfig(backend="nccl")
    for layout in (Layout(0, 2, 0, 1, "torchrun"), Layout()):
        with pytest.raises(UserError, match=r"distributed\.backend: nccl needs GPUs"):
            connect(config, layout, tmp_path)


@pytest.mark.parametrize("key", ["timeout_seconds", "start_timeout_seconds"])
def test_a_time_limit_that_no_clock_counts_to_is_refused(tmp_path: Path, key: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"distributed:\n  {key}: 1e30\n")
    with pytest.raises(UserError, match=rf"run.yaml:2: distributed\.{key}: must be at most 2592000"):
        load_config(RunConfig, path)
    longest = DistributedConfig(device="cpu", **{key: 30 * 86400})
    assert connect(longest, Layout(), tmp_path).world_size == 1


def test_what_needs_gpus_does_not_go_with_cpus(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("distributed:\n  sync_batchnorm: true\n  backend: nccl\n  device: cpu\n")
    with pytest.raises(UserError) as caught:
        load_config(RunConfig, path)
    assert "run.yaml:2: distributed.sync_batchnorm: has an effect only with device: auto or cuda" in str(caught.value)
    assert "run.yaml:3: distributed.backend: nccl needs GPUs, and device is cpu" in str(caught.value)
    path.write_text("distributed:\n  sync_batchnorm: true\n  backend: nccl\n")
    laptop = load_config(RunConfig, path, ["distributed.device=cpu"]).distributed
    assert (laptop.sync_batchnorm, laptop.backend) == (False, "auto"), "the command line has turned them off"


# -- collectives -----------------------------------------------------------------------------------------------------


def test_single_process_needs_no_group(tmp_path: Path) -> None:
    ranks = connect(CPU, Layout(), tmp_path)
    rows = torch.rand(3, 2)
    assert ranks.is_main and ranks.backend is None and not torch.distributed.is_initialized()
    assert ranks.gather_rows(rows) is rows
    assert ranks.gather_counts(4) == [4]
    assert ranks.gather_texts("é") == ["é"]
    assert ranks.main_decides(lambda: "") == ""
    assert torch.equal(ranks.sum_(rows.clone()), rows)
    ranks.barrier()
    ranks.close()
    assert list(tmp_path.iterdir()) == []


TEXTS = ["", "Grüße, 世界 🦢\nsecond line", "\udcff undecodable byte of a path"]


def talk(ranks: Ranks) -> dict[str, Any]:
    """Every collective once; rank r has r rows (none on rank 0) and the r-th text."""
    rank = ranks.rank
    answers: dict[str, Any] = {}

    def decide() -> str:
        answers["asked"] = True
        return "=!folder/ü"

    def refuse() -> str:
        raise UserError("no such folder: ü\nsecond line")

    answers["decided"] = ranks.main_decides(decide)
    with pytest.raises(UserError) as caught:
        ranks.main_decides(refuse)
    answers["refused"] = str(caught.value)
    with torch.inference_mode():  # as in evaluation
        rows = torch.arange(2.0 * rank).reshape(rank, 2) + 10 * rank
        answers["rows"] = ranks.gather_rows(rows).clone()
    for dtype in (torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool):
        answers[str(dtype)] = ranks.gather_rows(torch.full((rank + 1,), rank, dtype=dtype))
    answers["nothing"] = ranks.gather_rows(torch.zeros(0, 3, 4))
    answers["counts"] = ranks.gather_counts(5 * rank)
    answers["texts"] = ranks.gather_texts(TEXTS[rank])
    answers["empty"] = ranks.gather_texts("")
    mine = torch.tensor([float(rank + 1), 0.5])
    answers["sum_in_place"] = ranks.sum_(mine) is mine
    answers["sum"] = mine
    ranks.barrier()
    answers["layout"] = [ranks.rank, ranks.world_size, ranks.layout.local_world_size, ranks.layout.launcher]
    answers["backend"] = ranks.backend
    answers["timeout"] = torch.distributed.group.WORLD._get_backend(ranks.device).options._timeout.total_seconds()
    answers["flight recorder"] = os.environ.get("TORCH_FR_BUFFER_SIZE")
    return answers


@pytest.mark.parametrize("world_size, slurm_job", [(2, "71"), (3, None)])
def test_collectives(world_size: int, slurm_job: str | None, tmp_path: Path) -> None:
    results = run_ranks(world_size, talk, slurm_job=slurm_job, meeting_place=tmp_path / "meet" / "here")
    rows = torch.cat([torch.arange(2.0 * r).reshape(r, 2) + 10 * r for r in range(world_size)])
    for rank, answers in enumerate(results):
        assert answers["decided"] == "=!folder/ü"
        assert answers.get("asked", False) == (rank == 0)
        assert answers["refused"] == "no such folder: ü\nsecond line"
        assert torch.equal(answers["rows"], rows)
        for dtype in (torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool):
            expected = torch.cat([torch.full((r + 1,), r, dtype=dtype) for r in range(world_size)])
            assert answers[str(dtype)].dtype == dtype
            assert torch.equal(answers[str(dtype)], expected)
        assert answers["nothing"].shape == (0, 3, 4)
        assert answers["counts"] == [5 * r for r in range(world_size)]
        assert answers["texts"] == TEXTS[:world_size]
        assert answers["empty"] == [""] * world_size
        assert answers["sum_in_place"] is True
        assert answers["sum"].tolist() == [sum(range(world_size + 1)), 0.5 * world_size]
        launcher = "slurm" if slurm_job else "torchrun"
        assert answers["layout"] == [rank, world_size, world_size, launcher]
        assert answers["backend"] == "gloo"
        assert answers["timeout"] == 1860, "a minute more than the longest that a rank may take"
        assert answers["flight recorder"] == "2000", "it is on before the first group is made"
    assert not slurm_job or list((tmp_path / "meet" / "here").iterdir()) == []  # rank 0 has cleared its note away


def total(ranks: Ranks, value: float) -> float:
    return ranks.sum_(torch.tensor(value)).item()


def test_slurm_jobs_that_start_together_do_not_meet(tmp_path: Path) -> None:
    """Two jobs with one meeting place; a note of an earlier job with the number of one of them lies there too."""
    stale = tmp_path / meeting_name(slurm_environment(0, 2, "81"))
    stale.write_text("127.0.0.1 1")
    sums: dict[str, list[float]] = {}

    def start(job: str, value: float) -> None:
        sums[job] = run_ranks(2, total, value, slurm_job=job, meeting_place=tmp_path)

    threads = [threading.Thread(target=start, args=job) for job in (("81", 1.0), ("82", 10.0))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == {"81": [2.0, 2.0], "82": [20.0, 20.0]}
    assert list(tmp_path.iterdir()) == []


def break_down(ranks: Ranks) -> None:
    if ranks.rank == 1:
        raise ValueError("rank 1 is unwell")
    ranks.barrier()


def test_a_failing_rank_is_reported() -> None:
    with pytest.raises(AssertionError, match="rank 1 is unwell"):
        run_ranks(2, break_down)


def from_main(ranks: Ranks) -> dict[str, Any]:
    found = ranks.from_main(lambda: {"rank": ranks.rank, "numbers": torch.arange(1000), "text": "ü"})

    def refuse() -> int:
        raise UserError("no such file")

    with pytest.raises(UserError, match="no such file"):
        ranks.from_main(refuse)
    return found


def test_what_one_rank_has_read_all_have() -> None:
    for found in run_ranks(3, from_main):
        assert (found["rank"], found["text"]) == (0, "ü") and found["numbers"].equal(torch.arange(1000))
    alone = from_main(Ranks(Layout(), torch.device("cpu")))
    assert alone["rank"] == 0
