"""Which device and which backend a process takes, and what is refused before it meets the others."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch

from engine.config.load import load_config
from engine.config.run import DistributedConfig, RunConfig
from engine.distributed.connect import choose_backend, choose_device, connect
from engine.distributed.layout import Layout
from engine.errors import UserError

CPU = DistributedConfig(device="cpu")


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
    with pytest.raises(UserError, match=rf"run.yaml:2: distributed\.{key}: must be a number > 0 and <= 2592000, not"):
        load_config(RunConfig, path)
    longest = DistributedConfig(device="cpu", **{key: 30 * 86400})
    assert connect(longest, Layout(), tmp_path).world_size == 1


def test_what_needs_gpus_does_not_go_with_cpus(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("distributed:\n  sync_batchnorm: true\n  backend: nccl\n  device: cpu\n")
    with pytest.raises(UserError) as caught:
        load_config(RunConfig, path)
    assert "run.yaml:2: distributed.sync_batchnorm: has an effect only with device: auto or cuda" in str(caught.value)
    path.write_text("distributed:\n  backend: nccl\n  device: cpu\n")
    with pytest.raises(UserError, match=r"run\.yaml:2: distributed\.backend: nccl needs GPUs, and device is cpu"):
        load_config(RunConfig, path)
    path.write_text("distributed:\n  sync_batchnorm: true\n  backend: nccl\n")
    laptop = load_config(RunConfig, path, ["distributed.device=cpu"]).distributed
    assert (laptop.sync_batchnorm, laptop.backend) == (False, "auto"), "the command line has turned them off"


@pytest.mark.parametrize(("launcher", "patience"), [("submitit", 120.0), ("slurm", 1860.0)])
def test_ranks_of_a_local_job_wait_less_long_for_rank_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: str, patience: float
) -> None:
    """Nobody ends them when rank 0 dies before it listens; srun's are ended by srun."""

    def refuse(folder: Path, rank: int, world_size: int, timeout: timedelta) -> None:
        raise UserError(f"{folder.name} {rank} {world_size} {timeout.total_seconds()}")

    monkeypatch.setattr("engine.distributed.connect.shared_store", refuse)
    monkeypatch.setattr("engine.distributed.connect.prepare_flight_recorder", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(UserError, match=f"{tmp_path.name} 1 2 {patience}"):
        connect(DistributedConfig(device="cpu"), Layout(1, 2, 1, 2, launcher), tmp_path)
