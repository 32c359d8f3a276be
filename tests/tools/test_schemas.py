"""The schema files in configs/schema say what the configuration types say."""

import json
from pathlib import Path

import pytest

from engine.task.spec import known_tasks
from tools import schemas


@pytest.mark.parametrize("task", known_tasks())
def test_schema_files_are_current(task: str) -> None:
    path = schemas.FOLDER / f"{task}.json"
    assert path.is_file(), "run python -m tools.schemas"
    assert path.read_text(encoding="utf-8") == schemas.schema_text(task), "run python -m tools.schemas"


@pytest.mark.parametrize("task", known_tasks())
def test_every_key_is_described(task: str) -> None:
    document = json.loads(schemas.schema_text(task))
    sections = {task: document, **document.get("$defs", {})}
    undescribed = [
        f"{name}.{key}"
        for name, section in sections.items()
        for key, entry in section.get("properties", {}).items()
        if "description" not in entry and "$ref" not in entry  # a section describes itself
    ]
    assert undescribed == []


def test_check_names_stale_files(tmp_path: Path) -> None:
    paths = schemas.write(tmp_path)
    assert [path.stem for path in paths] == known_tasks()
    assert schemas.write(tmp_path) == []
    paths[0].write_text("{}", encoding="utf-8")
    assert schemas.stale(tmp_path) == [paths[0]]
    assert "required" in schemas.schema_text(paths[0].stem)
