"""What a check measures, in every task alike: it knows them by their specs."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.config.load import dump_config
from engine.files import read_json
from engine.task.spec import find_spec
from tests.classification import small as classification_runs
from tests.detection import small as detection_runs
from tests.diffusion import small as diffusion_runs
from tools.check import measure
from tools.check.measure import Request, rehearse

TOY = "tests.toy_task"


def trees(folder: Path) -> dict[str, dict[str, Any]]:
    """A small configuration of each task."""
    toy = {"training": {"steps": 60, "global_batch_size": 8, "precision": "fp32"}, "distributed": {"device": "cpu"}}
    trees = {"classification": classification_runs.TINY, "detection": detection_runs.tree()}
    trees |= {"diffusion": diffusion_runs.tree(), TOY: toy}
    return {task: {**tree, "experiment": {"root": str(folder / "experiments")}} for task, tree in trees.items()}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "STEP_SECONDS", 0.1)
    monkeypatch.setattr(measure, "LOADER_SECONDS", 0.1)


def written(folder: Path, task: str) -> str:
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(trees(folder)[task]))
    return str(file)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("task", ["classification", "detection", "diffusion", TOY])
def test_a_rehearsal_measures_and_leaves_nothing(tmp_path: Path, task: str) -> None:
    found = rehearse(Request(task, written(tmp_path, task)))
    assert found["errors"] == [] and "out_of_memory" not in found
    assert found["steps"]["total"] >= 6 and found["disk"]["checkpoint_bytes"] > 0 and found["made"]["skipped"] == 0
    for name in ("step_seconds", "first_step_seconds", "evaluation_seconds", "save_seconds", "memory_bytes"):
        assert found[name] > 0, name
    assert all(rate > 0 for rate in found["images_per_second"].values())
    assert not (tmp_path / "experiments").exists()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("task", ["classification", TOY])
def test_one_device_does_the_part_of_one_of_several(tmp_path: Path, task: str) -> None:
    alone, part = (rehearse(Request(task, written(tmp_path, task), 1, devices)) for devices in (1, 4))
    assert part["steps"] == alone["steps"] and part["errors"] == []
    assert part["batch"] == {**alone["batch"], "micro": alone["batch"]["micro"] // 4}


def test_what_is_built_alone_makes_no_step(tmp_path: Path) -> None:
    found = rehearse(Request(TOY, written(tmp_path, TOY), steps=False))
    assert "step_seconds" not in found and found["model"]["parameters"] > 0


def test_in_a_process_of_its_own_it_is_the_same_and_its_death_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tools.check import apart

    spec = find_spec(TOY)
    config = spec.schema().model_validate(trees(tmp_path)[TOY] | {"experiment": {}})
    assert dump_config(config)
    before = time.time()
    found = apart.rehearse_apart(config, Request(TOY, "", steps=False))
    assert found["errors"] == [] and found["model"]["parameters"] > 0
    assert 0 < found["start_seconds"] < time.time() - before
    monkeypatch.setattr(apart.sys, "executable", "/bin/false")
    assert apart.rehearse_apart(config, Request(TOY, ""))["errors"] == ["rehearsal: training would fail: exit code 1"]
    killer = tmp_path / "killer"
    killer.write_text("#!/bin/sh\nkill -9 $$\n")
    killer.chmod(0o755)
    monkeypatch.setattr(apart.sys, "executable", str(killer))
    assert "was killed" in apart.rehearse_apart(config, Request(TOY, ""))["out_of_memory"]


def test_its_process_waits_for_threads_as_one_that_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "1")
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setattr(measure, "rehearse", lambda request: {"spins": os.environ.get("GOMP_SPINCOUNT")})
    monkeypatch.setattr(measure, "end_with_parent", lambda: None)  # this process is to outlive its own
    (tmp_path / "request.json").write_text('{"task": "", "config": ""}')
    measure.main(tmp_path / "request.json", tmp_path / "result.json")
    assert read_json(tmp_path / "result.json") == {"spins": "3000"}
