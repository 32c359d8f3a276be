"""Settings of any text on the command line: text arrives as typed, anything else is YAML or refused by its key."""

from __future__ import annotations

import contextlib
import io
import re
from functools import reduce
from pathlib import Path

import pytest
import yaml
from hypothesis import strategies as st

from engine.commands.arguments import parse_train_arguments
from engine.config.load import read_override, split_values
from engine.config.type_words import key_paths, types_at
from engine.task.spec import find_spec
from tests.fuzz.examples import Hunt, hunted, refused
from tests.fuzz.test_yaml_text import opened
from tests.fuzz.yaml_texts import ODD_TEXTS, TASKS, TREES, written

pieces = (
    st.sampled_from(ODD_TEXTS)
    | st.text(max_size=5)
    | st.characters(categories=["Cc"])
    | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF, categories=["Cs"])
    | st.integers().map(str)
)
typed = st.lists(pieces, max_size=4).map("".join)
PLAIN = re.compile(r"(?:(?:---|&\S+|!!\w+)\s+)*\s*(\S*)\s*(?:\.\.\.\s*)?")
"""A value with what YAML allows around it."""
NULL = ("", "~", "null", "Null", "NULL")


def keys_of(task: str) -> list[str]:
    return sorted({".".join(path) for path, _ in key_paths(find_spec(task).schema())})


def simple(text: str) -> bool | int | float:
    """What a text without spaces says."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    with contextlib.suppress(ValueError):
        return int(text, 0)
    return float(text)


@pytest.fixture(params=TASKS)
def run_file(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A task, and the file of a valid configuration of it."""
    trees = {tree["data"]["source"]: tree for task, tree in TREES if task == request.param}
    tree = next(trees[source] for source in ("csv", "shapes", "digits") if source in trees)
    (tmp_path / "run.yaml").write_text(written(tree), encoding="utf-8")
    return request.param, tmp_path / "run.yaml"


@hunted(80, 4000)
def test_a_setting_arrives_as_typed_or_as_yaml_or_is_refused(hunt: Hunt, run_file: tuple[str, Path]) -> None:
    task, file = run_file
    schema = find_spec(task).schema()

    @hunt(st.sampled_from(keys_of(task)), typed)
    def check(key: str, text: str) -> None:
        config, message = opened(task, file, f"{key}={text}")
        if config is None:
            assert message.startswith("command line: ") or f": {key}" in message, message
            return
        value = reduce(lambda section, name: getattr(section, name, None), key.split("."), config)
        if types_at(schema, key.split(".")) == [str]:
            quoted = text[:1] in ("'", '"') and text[:1] == text[-1:] and len(text) > 1
            assert value == (yaml.safe_load(text) if quoted else text)
        elif isinstance(value, bool | int | float):
            plain = PLAIN.fullmatch(text)
            kind = float if isinstance(value, float) else lambda same: same  # floats of whole numbers are the nearest
            assert plain and (plain[1] in NULL or value == kind(simple(plain[1])))


@hunted(100, 10000)
def test_a_sweep_is_split_at_each_comma_that_stands_in_no_quotes(hunt: Hunt) -> None:
    schema = find_spec("classification").schema()

    @hunt(
        st.sampled_from(["experiment.name", "optimizer.lr", "data.csv", "data.label_columns", "training.epochs"]),
        st.lists(pieces | st.just(","), max_size=6).map("".join),
    )
    def check(key: str, text: str) -> None:
        values, _ = refused(lambda: split_values(key, text, schema))
        for value in values or ():
            refused(lambda value=value: read_override(f"{key}={value}", schema))
        if key == "experiment.name" and not {"'", '"'} & {*text}:
            assert values == [part.lstrip() for part in text.split(",")]


@hunted(40, 4000)
def test_arguments_are_parsed_or_end_with_2(hunt: Hunt) -> None:
    @hunt(
        st.lists(
            typed
            | st.sampled_from(["--config", "--resume", "--dry-run", "--print-config", "--", "-x", "--help", "--no"]),
            max_size=5,
        )
    )
    def check(words: list[str]) -> None:
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            try:
                parse_train_arguments("classification", words, find_spec("classification").schema)
            except SystemExit as end:
                assert end.code == (0 if any(word in ("-h", "--help") for word in words) else 2) or "-h" in str(words)
