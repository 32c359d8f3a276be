"""Time and memory that a check expects, beside those that a run then takes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from engine.run_folder.metrics import read_metrics
from tests.environment import ROOT, clean_environment

NEAR = 0.25
QUICK = {task: f"configs/{task}/quickstart.yaml" for task in ("classification", "detection", "diffusion")}


def swin_tiny(folder: Path) -> Path:
    """A Swin-T at 224 pixels on photographs of noise."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 48), ("val", 16)):
        for kind in ("ant", "bee"):
            (folder / split / kind).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 255, (32, 32, 3), np.uint8)
                image = Image.fromarray(pixels).resize((320, 240))
                image.save(folder / split / kind / f"{number}.jpg")
    path = folder / "swin_tiny.yaml"
    data = {"source": "folder", "root": str(folder), "image_size": 224, "workers": 1}
    training = {"epochs": 4, "global_batch_size": 8}
    evaluation = {"every_epochs": 2, "batch_size": 8}
    sections = {"model": {"name": "swin_tiny"}, "data": data, "training": training, "evaluation": evaluation}
    path.write_text(yaml.safe_dump({**sections, "logging": {"every_steps": 4}}))
    return path


def run(*command: str) -> float:
    """Runs a module of the suite. Returns the seconds that it took."""
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=3000, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return time.monotonic() - begin


@pytest.mark.full
@pytest.mark.parametrize("name", [*QUICK, "swin_tiny"])
def test_what_a_check_expects_is_what_happens(tmp_path: Path, name: str) -> None:
    """On a machine that nobody else uses: no other process takes part of its time."""
    task = name if name in QUICK else "classification"
    config = QUICK[name] if name in QUICK else str(swin_tiny(tmp_path / "data"))
    common, root = ("--config", config), f"experiment.root={tmp_path / 'experiments'}"
    run("tools.check", "--task", task, *common, "--no-login-node", "--json", str(tmp_path / "check.json"), root)
    expected = json.loads((tmp_path / "check.json").read_text())
    seconds = run(f"{task}.train", *common, root)
    records = read_metrics(tmp_path / "experiments" / "experiment_0001" / "metrics.jsonl", "train")
    memory = max(record["memory_gb"] for record in records) * 1e9
    told = f"{name}: {expected['seconds']['total']:.0f} s expected, {seconds:.0f} s taken; "
    told += f"{expected['memory_bytes'] / 1e9:.2f} GB expected, {memory / 1e9:.2f} GB taken"
    print(told)
    assert abs(expected["seconds"]["total"] - seconds) <= NEAR * seconds, told
    assert abs(expected["memory_bytes"] - memory) <= NEAR * memory, told
