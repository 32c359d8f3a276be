"""NCCL's flight recorder is on, and a user's choice of its settings stays."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch.distributed as dist
import yaml

from engine.commands.arguments import TrainArguments
from engine.commands.train import run_training
from engine.distributed.flight_recorder import keep_flight_record_in, prepare_flight_recorder, write_flight_record
from engine.process.signals import StopRequest
from tests.engine.faulty import SPEC


@pytest.mark.parametrize("chosen", ["TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE"])
def test_a_users_choice_stays(chosen: str) -> None:
    environment = {chosen: "0", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE": "/mine"}
    prepare_flight_recorder(environment)
    keep_flight_record_in(Path("logs"), environment)
    expected = {chosen: "0", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE": "/mine", "TORCH_NCCL_DUMP_ON_TIMEOUT": "1"}
    assert environment == expected


def test_it_is_on_and_writes_into_the_logs() -> None:
    environment: dict[str, str] = {}
    prepare_flight_recorder(environment)
    keep_flight_record_in(Path("logs"), environment)
    assert environment == {
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
        "TORCH_FR_BUFFER_SIZE": "2000",
        "TORCH_FR_DUMP_TEMP_FILE": "logs/nccl_rank_",
    }


def test_the_last_collectives_are_written_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "nccl_rank_0.json"
    write_flight_record(path)
    assert not path.exists(), "no group, no record"
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_backend", lambda: "nccl")
    thread = write_flight_record(path)
    assert thread is not None
    thread.join(30)
    assert "version" in json.loads(path.read_text())


def test_a_run_has_it_write_into_its_own_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FR_DUMP_TEMP_FILE", "")
    monkeypatch.delenv("TORCH_FR_DUMP_TEMP_FILE")
    tree = {
        "experiment": {"root": str(tmp_path)},
        "training": {"steps": 1, "global_batch_size": 6, "precision": "fp32"},
        "logging": {"tensorboard": False},
        "distributed": {"device": "cpu"},
    }
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(tree))
    assert run_training(SPEC, TrainArguments(tmp_path / "toy.yaml", None, False, ()), StopRequest()) == 0
    assert os.environ["TORCH_FR_DUMP_TEMP_FILE"] == str(tmp_path / "experiment_0001" / "logs" / "nccl_rank_")
