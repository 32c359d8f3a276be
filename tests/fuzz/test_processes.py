"""Whole commands on damaged input: they end with 0 or 2, soon, without a traceback and without much memory."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from engine.config.type_words import key_paths
from engine.task.spec import find_spec
from tests.classification import small as classification
from tests.detection import small as detection
from tests.detection.coco_files import write_split
from tests.diffusion import small as diffusion
from tests.distributed import launch
from tests.fuzz import image_files, test_coco_json, test_csv_bytes, yaml_texts
from tests.fuzz.examples import Hunt, hunted
from tests.fuzz.limited import SAID

GB = 10**9
SECONDS = 60.0
HUGE = "million pixels"
MILD = [None, True, False, 0, 1, 2, 3, -1, 0.0, 0.5, 1.5, 1e-9, 100, "", "x", "auto", "all", [], {}, [1, 1], [0.1, 0.5]]
"""Values that ask for nothing large."""


def ends_well(task: str, folder: Path, most: float = GB) -> None:
    """Runs ``TASK.train`` for a step and asserts how it ends, and in how much memory but that of a huge picture."""
    command = [sys.executable, "-m", "tests.fuzz.limited", f"{task}.train", "--config", "run.yaml", "--dry-run"]
    (ended,) = launch(1, command, cwd=folder, timeout=SECONDS)
    assert ended.returncode in (0, 2) and "Traceback" not in ended.output, ended.output
    peak = re.search(f"{SAID}([0-9]+)", ended.output)
    assert peak and (int(peak[1]) < most or HUGE in ended.output), ended.output


def configuration(task: str, folder: Path) -> dict[str, Any]:
    """Writes small data, and returns a configuration that reads them."""
    if task == "detection":
        for split in ("train", "val"):
            write_split(folder, split, test_coco_json.document()["annotations"])
        data = {"source": "coco", "root": str(folder), "image_size": 48, "workers": 0}
        data |= {split: {"images": split, "annotations": f"{split}.json"} for split in ("train", "val")}
        return detection.tree(data=data, training={"steps": 2, "global_batch_size": 2})
    classification.write_images(folder, {"cat": 2, "dog": 2, "owl": 2})
    (folder / "table.csv").write_text(test_csv_bytes.TABLE)
    data = {"source": "csv", "root": str(folder), "csv": str(folder / "table.csv"), "image_size": 16, "workers": 0}
    data |= {"label_columns": ["kind"], "split_column": "split"}
    if task == "diffusion":
        return diffusion.tree(data={**data, "image_size": 8}, training={"steps": 2, "global_batch_size": 2})
    return classification.merged(classification.TINY, {"data": data, "training": {"global_batch_size": 2}})


@pytest.mark.parametrize("task", yaml_texts.TASKS)
@hunted(2, 300)
def test_damaged_data(hunt: Hunt, task: str, tmp_path: Path) -> None:
    base = configuration(task, tmp_path)
    (tmp_path / "run.yaml").write_text(yaml_texts.written(base))
    table, content = (
        ("train.json", test_coco_json.texts()) if task == "detection" else ("table.csv", test_csv_bytes.damaged())
    )
    picture = tmp_path / ("train/0.png" if task == "detection" else "cat/000.jpg")
    whole = (tmp_path / table).read_bytes(), picture.read_bytes()

    @hunt(st.tuples(content, st.just(whole[1])) | st.tuples(st.just(whole[0]), image_files.damaged()))
    def check(contents: tuple[bytes, bytes]) -> None:
        (tmp_path / table).write_bytes(contents[0])
        picture.write_bytes(contents[1])
        ends_well(task, tmp_path)


@pytest.mark.parametrize("task", yaml_texts.TASKS)
@hunted(2, 300)
def test_odd_settings(hunt: Hunt, task: str, tmp_path: Path) -> None:
    base = configuration(task, tmp_path)
    keys = sorted({path for path, _ in key_paths(find_spec(task).schema()) if path[0] not in ("detection", "model")})
    kept = {section: base[section] for section in ("detection", "model") if section in base}

    @hunt(yaml_texts.trees(base, keys, st.sampled_from(MILD)))
    def check(changed: dict[str, Any]) -> None:
        (tmp_path / "run.yaml").write_text(yaml_texts.written({**changed, **kept}), encoding="utf-8")
        ends_well(task, tmp_path, most=float("inf"))
