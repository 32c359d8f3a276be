"""Configuration files of any text: a configuration that can be written and read again, or a message with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from engine.config.load import dump_config, load_config
from engine.config.type_words import key_paths
from engine.task.spec import find_spec
from tests.fuzz import yaml_texts
from tests.fuzz.examples import Hunt, hunted, refused


def opened(task: str, path: Path, *overrides: str) -> tuple[Any, str]:
    """Does what ``TASK.train`` does before it opens data; returns the configuration, or what a user is told."""
    spec = find_spec(task)
    config, message = refused(lambda: load_config(spec.schema(), path, overrides))
    if config is None:
        lines = message.splitlines()
        assert all(line.startswith((str(path), path.name, "command line", "base", ".")) for line in lines[:1]), message
        return None, message
    resolved = path.with_name("resolved.yaml")
    resolved.write_text(dump_config(config), encoding="utf-8")
    assert load_config(spec.schema(), resolved) == config
    json.loads(config.model_dump_json())
    return config, refused(lambda: spec.metrics(config).deciding(config))[1]


@hunted(80, 4000)
def test_any_bytes(hunt: Hunt, tmp_path: Path) -> None:
    @hunt(
        st.binary(max_size=60)
        | st.text(max_size=60).map(str.encode)
        | st.lists(yaml_texts.odd_texts).map(lambda t: "".join(t).encode(errors="replace"))
    )
    def check(content: bytes) -> None:
        (tmp_path / "run.yaml").write_bytes(content)
        assert opened("classification", tmp_path / "run.yaml")[1]


@pytest.mark.parametrize("task", yaml_texts.TASKS)
@hunted(80, 4000)
def test_odd_values(hunt: Hunt, task: str, tmp_path: Path) -> None:
    bases = [tree for name, tree in yaml_texts.TREES if name == task]
    keys = sorted({path for path, _ in key_paths(find_spec(task).schema())})

    @hunt(st.sampled_from(bases).flatmap(lambda base: yaml_texts.trees(base, keys)))
    def check(tree: dict[str, Any]) -> None:
        (tmp_path / "run.yaml").write_text(yaml_texts.written(tree), encoding="utf-8", errors="surrogatepass")
        opened(task, tmp_path / "run.yaml")


@pytest.mark.parametrize("task", yaml_texts.TASKS)
@hunted(80, 4000)
def test_odd_text(hunt: Hunt, task: str, tmp_path: Path) -> None:
    bases = [yaml_texts.written(tree) for name, tree in yaml_texts.TREES if name == task]

    @hunt(st.sampled_from(bases).flatmap(yaml_texts.texts))
    def check(content: bytes) -> None:
        (tmp_path / "run.yaml").write_bytes(content)
        opened(task, tmp_path / "run.yaml")
