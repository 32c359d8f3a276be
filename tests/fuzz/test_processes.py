"""Whole commands on damaged input: they end with 0 or 2, soon, without a traceback and without much memory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

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
from tests.fuzz.limited import TOOK

GB = 10**9
SECONDS = 60
HUGE = "million pixels"
MILD = [None, True, False, 0, 1, 2, 3, -1, 0.0, 0.5, 1.5, 1e-9, 100, "", "x", "auto", "all", [], {}, [1, 1], [0.1, 0.5]]
"""Values that ask for nothing large."""


def ends_well(task: str, folder: Path, most: float = GB) -> None:
    """Runs ``TASK.train`` for a step and asserts how it ends, and in how much memory but that of a huge picture."""
    command = [sys.executable, "-m", "tests.fuzz.limited", f"{task}.train", "--config", "run.yaml", "--dry-run"]
    (ended,) = launch(1, command, cwd=folder)
    assert ended.returncode in (0, 2) and "Traceback" not in ended.output, ended.output
    took = TOOK.search(ended.output)
    assert took and (int(took[1]) < most or HUGE in ended.output) and int(took[2]) < SECONDS, ended.output


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


def damages(folder: Path, task: str) -> st.SearchStrategy[tuple[str, str, bytes]]:
    """The task, a file of its folder, and other contents for it."""
    base = configuration(task, folder)
    (folder / "run.yaml").write_text(yaml_texts.written(base))
    keys = sorted({path for path, _ in key_paths(find_spec(task).schema()) if path[0] not in ("detection", "model")})
    kept = {section: base[section] for section in ("detection", "model") if section in base}
    trees = yaml_texts.trees(base, keys, st.sampled_from(MILD))
    contents = {
        **({"train/0.png": image_files.damaged()} if task == "detection" else {"cat/000.jpg": image_files.damaged()}),
        **({"train.json": test_coco_json.texts()} if task == "detection" else {"table.csv": test_csv_bytes.damaged()}),
        "run.yaml": trees.map(lambda changed: yaml_texts.written({**changed, **kept}).encode()),
    }
    return st.one_of(*(st.tuples(st.just(task), st.just(name), content) for name, content in contents.items()))


@hunted(5, 300)
def test_a_step_of_training_on_a_damaged_file(hunt: Hunt, tmp_path: Path) -> None:
    for task in yaml_texts.TASKS:
        (tmp_path / task).mkdir()

    @hunt(st.one_of(*(damages(tmp_path / task, task) for task in yaml_texts.TASKS)))
    def check(damage: tuple[str, str, bytes]) -> None:
        task, name, content = damage
        file = tmp_path / task / name
        whole = file.read_bytes()
        file.write_bytes(content)
        try:
            ends_well(task, tmp_path / task, most=float("inf") if name == "run.yaml" else GB)
        finally:
            file.write_bytes(whole)
