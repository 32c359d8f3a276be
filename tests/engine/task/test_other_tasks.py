"""A configuration that is another task's is told in one line, by commands and from Python."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from detection import load_detector
from engine.config.load import ConfigError, load_config
from engine.errors import UserError
from engine.task import other_tasks
from engine.task.other_tasks import explained
from engine.task.spec import TaskSpec, find_spec
from tests.classification.small import write_config
from tests.environment import ROOT

WORDS = "model: this task has no such section: use python -m classification.…"


def error_of(config: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        load_config(find_spec("detection").schema(), config)
    return caught.value


def test_the_task_is_named_whatever_else_lies_beside_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(name: str) -> TaskSpec:
        if name == "segmentation":
            raise SyntaxError("half written")
        return find_spec(name)

    error = error_of(write_config(tmp_path))
    monkeypatch.setattr(other_tasks, "known_tasks", lambda: ["classification", "detection", "segmentation"])
    monkeypatch.setattr(other_tasks, "find_spec", found)
    assert explained(error).endswith(WORDS) and len(explained(error).splitlines()) == 1
    assert explained(pickle.loads(pickle.dumps(error))) == explained(error)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("detection/evaluate.py", "use python -m classification.evaluate --experiment it or "),
        ("diffusion/sample.py", "use python -m classification.… or "),  # which has no such command
        ("tools/check/__main__.py", "use --task classification or "),
    ],
)
def test_no_command_is_named_that_the_other_task_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, said: str
) -> None:
    monkeypatch.setattr("sys.argv", [str(ROOT / program), "--experiment", "it"])
    assert said in explained(error_of(write_config(tmp_path)))


def test_a_section_that_no_task_has_is_told_as_it_is() -> None:
    error = ConfigError("a.yaml:1: optimizr: unknown key", {"optimizr": "a.yaml:1"})
    assert explained(error) == str(error)


def test_from_python_too(tmp_path: Path) -> None:
    write_config(tmp_path).rename(tmp_path / "config.yaml")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.pt").touch()
    with pytest.raises(UserError, match="model: this task has no such section: use python -m classification"):
        load_detector(tmp_path)
