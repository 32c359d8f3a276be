"""Paths that lead nowhere, or that no file system takes, wherever one may be given: a message, never a traceback."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import pytest
from hypothesis import strategies as st

from engine.commands.arguments import TrainArguments
from engine.commands.entry import exit_code
from engine.commands.named_files import find_images
from engine.commands.resume import plan
from engine.errors import EXIT_USER_ERROR
from engine.run_folder.used_config import used_config
from engine.task.spec import find_spec
from tests.fuzz import yaml_texts
from tests.fuzz.examples import Hunt, hunted, refused
from tests.fuzz.test_processes import configuration
from tools.check import __main__ as command

PARTS = [
    "a",
    "..",
    ".",
    "loop",
    "file",
    "folder",
    "x" * 300,
    "x" * 255,
    "é" * 200,
    " ",
    "\n",
    "#",
    "~",
    "*",
    "\udce9",
    "\\",
    "null",
    "dangling",
]
paths = st.lists(st.sampled_from(PARTS), min_size=1, max_size=4).map("/".join) | st.sampled_from(
    ["", "/", "/dev/null", "/proc/self/mem", "a/" * 3000]
)


@pytest.fixture(autouse=True)
def _odd_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.symlink("loop", "loop")
    os.symlink("nowhere", "dangling")
    Path("file").write_bytes(b"\xff\x00")
    Path("folder").mkdir()


@pytest.mark.parametrize("task", yaml_texts.TASKS)
@hunted(20, 1000)
def test_in_a_configuration(hunt: Hunt, task: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "run.yaml").write_text(yaml_texts.written(configuration(task, tmp_path)))
    keys = ["experiment.root", "data.root", "finetune.weights"]
    keys += ["data.train.images", "data.train.annotations"] if task == "detection" else ["data.csv"]

    @hunt(st.sampled_from(keys), paths)
    def check_(key: str, path: str) -> None:
        arguments = ["--task", task, "--config", str(tmp_path / "run.yaml"), "--quick", f"{key}={path}"]
        code, message = refused(lambda: command.check(command._parser().parse_intermixed_args(arguments)))
        assert code in (0, 2) or message, message
        capsys.readouterr()


@hunted(30, 3000)
def test_on_the_command_line(hunt: Hunt, tmp_path: Path) -> None:
    schema = find_spec("classification").schema()
    (tmp_path / "run.yaml").write_text(yaml_texts.written(configuration("classification", tmp_path)))

    @hunt(paths)
    def check(path: str) -> None:
        (tmp_path / "base.yaml").write_bytes(f"base: {yaml_texts.written(path)}".encode(errors="surrogateescape"))
        for call in (
            lambda: plan(schema, TrainArguments(Path(path), None, False, ())),
            lambda: plan(schema, TrainArguments(None, path, False, ())),
            lambda: plan(schema, TrainArguments(tmp_path / "base.yaml", None, False, ())),
            lambda: used_config(Path(path), schema, ()),
            lambda: 0 if os.path.isdir(path) else len(find_images([path], "path", Path())) - 1,
        ):
            with contextlib.redirect_stderr(io.TextIOWrapper(io.BytesIO(), errors="backslashreplace")):
                assert exit_code(call) == EXIT_USER_ERROR or call() == 0
