"""Settings of the command line: text arrives as it was typed, anything else is YAML."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from engine.config.load import (
    dump_config,
    emptied,
    load_config,
    load_recorded,
    older_settings,
    read_override,
    split_values,
)
from engine.config.paths import AbsolutePath
from engine.config.section import Section, Variants
from engine.errors import UserError


class Table(Section):
    source: Literal["table"]
    root: AbsolutePath
    csv: AbsolutePath | dict[str, AbsolutePath] | None = None
    columns: list[str] = []


class Drawn(Section):
    source: Literal["drawn"]
    size: int | Literal["auto"] = "auto"


class Run(Section):
    name: str = ""
    note: str | None = None
    rate: Annotated[float, Field(allow_inf_nan=True)] = 1.0
    data: Annotated[Drawn | Table, Variants("source")] = Drawn(source="drawn")


BENT = (
    *(
        "/my #1 data",
        "#1",
        "a: b",
        "a:",
        "b ",
        " b",
        "007",
        "1e3",
        "12",
        "-1",
        ".5",
        "0x1F",
        "1_000",
        "2024-01-01",
        ".",
    ),
    *(
        "~x",
        "~",
        "*star",
        "&anchor",
        "&a b",
        "!bang",
        "!!int 3",
        "%percent",
        "@at",
        "`tick`",
        "|",
        ">",
        "|-",
        "?",
        "? a",
    ),
    *("- item", "-", "--", "[2024] set", "[a]", "{a} [b]", "{a: 1}", "no", "true", "null", "Null", "it's", "'a", 'a"'),
    *(
        '"a" b',
        "'a' 'b'",
        "a\tb",
        "\tb",
        "a\nb\n",
        "a\\tb",
        "a,b",
        "a = b",
        "<<",
        "é…日",
        "\x1b[1m",
        "a\u2028b",
        "\x85",
    ),
)
"""What YAML would cut, bend or refuse."""


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(*overrides: str) -> Run:
    Path("run.yaml").write_text("name: run\n")
    return load_config(Run, Path("run.yaml"), overrides)


def problem(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load(*overrides)
    return str(caught.value)


@pytest.mark.parametrize("text", BENT)
def test_text_arrives_as_it_was_typed_and_a_resolved_configuration_keeps_it(text: str) -> None:
    config = load(f"name={text}", "data.source=table", f"data.root=./{text}", f"data.csv=./{text}")
    assert config.name == text
    assert isinstance(config.data, Table)
    assert config.data.root == config.data.csv == Path(f"./{text}").absolute()
    Path("resolved.yaml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(Run, Path("resolved.yaml")) == config


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ('name="a #1"', "name", "a #1"),
        ("name='it''s'", "name", "it's"),
        (r'name="a\tb"', "name", "a\tb"),
        ("name=", "name", ""),
        ("name=null", "name", "null"),
        ("note=null", "note", None),
        ("note='null'", "note", "null"),
        ("note=", "note", ""),
        ("rate=1e-3", "rate", 1e-3),
        ("rate=.inf", "rate", math.inf),
    ],
)
def test_quotes_null_and_numbers_are_yaml(override: str, key: str, value: Any) -> None:
    assert getattr(load(override), key) == value


def test_of_what_may_be_text_or_more_brackets_are_yaml() -> None:
    table = ["data.source=table", "data.root=x", "data.columns=[a, 'b #2']"]
    config = load(*table, "data.csv={train: a.csv, val: 'b #2.csv'}")
    assert isinstance(config.data, Table) and isinstance(config.data.csv, dict)
    assert config.data.csv == {"train": Path.cwd() / "a.csv", "val": Path.cwd() / "b #2.csv"}
    assert config.data.columns == ["a", "b #2"]
    config = load(*table, "data.csv.train=b #2.csv", "data.csv.val=[1] c.csv")
    assert isinstance(config.data, Table) and isinstance(config.data.csv, dict)
    assert [path.name for path in config.data.csv.values()] == ["b #2.csv", "[1] c.csv"]
    config = load(*table, "data.csv=[1] c.csv")
    assert isinstance(config.data, Table) and config.data.csv == Path.cwd() / "[1] c.csv"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rate=5 #6", "rate: '#6' is a comment in YAML; leave it away, or use quotes"),
        ("rate=#6", "rate: '#6' is a comment in YAML; leave it away, or use quotes"),
        ("data.columns=[a] # b", "data.columns: '# b' is a comment in YAML; leave it away, or use quotes"),
        ("data.columns=[!a b]", "data.columns: the tag !a cannot be used here"),
        ("rate={0:head}", "rate: 0:head: wants a space behind the colon: {0: head}"),
        ("name=\udce9", r"name: '\udce9' is not UTF-8 text"),
        ("name=\"a\\q\"", "name: is not valid YAML: while scanning a double-quoted scalar, found unknown escape"),
    ],
)  # fmt: skip
def test_what_yaml_would_cut_is_refused_with_its_key(override: str, message: str) -> None:
    assert problem("data.source=table", "data.root=x", override).startswith(f"command line: {message}")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("/my #1,/my #2", ["/my #1", "/my #2"]),
        ("a", ["a"]),
        ("a, b,  c ", ["a", "b", "c "]),
        ("'p,q',\"r,s\",it's", ["'p,q'", '"r,s"', "it's"]),
        ("[1] a,{b}", ["[1] a", "{b}"]),
        ("a,,b", ["a", "", "b"]),
        ("a,", ["a", ""]),
    ],
)
def test_swept_texts_are_split_at_commas_outside_of_quotes(text: str, values: list[str]) -> None:
    assert split_values("name", text, Run) == values


@pytest.mark.parametrize("text", [text for text in BENT if "," not in text and text == text.lstrip()])
def test_a_swept_text_arrives_as_it_was_typed(text: str) -> None:
    first, second = split_values("name", f"x,{text}", Run)
    assert [read_override(f"name={value}", Run).plain()["name"] for value in (first, second)] == ["x", text]


def test_swept_lists_and_numbers_are_yaml() -> None:
    assert split_values("data.columns", "[a, b],[c]", Run) == ["[a, b]", "[c]"]
    assert split_values("data.csv", "{train: a, val: b},c", Run) == ["{train: a, val: b}", "c"]
    assert split_values("rate", "1e-3, 2", Run) == ["1e-3", "2"]
    with pytest.raises(UserError, match="--sweep: rate: '1,2 #3' is no list of values a,b,c"):
        split_values("rate", "1,2 #3", Run)


def test_a_setting_without_a_value_is_told() -> None:
    assert load("note=").note == "" and load("name=").name == ""
    assert load("data.source=table", "data.root=x", "data.csv=null").data.csv is None
    told = emptied(["name=", "note=", "data.size=", "rate=1", "name=a="], Run)
    said = "nothing stands behind =, so it is"
    assert told == [
        f"command line: name: {said} empty text",
        f"command line: note: {said} empty text",
        f"command line: data.size: {said} null",
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rate=", "rate: must be a number, not null"),
        ("data.size=", "data.size: must be a whole number or 'auto', not null"),
        ("data.csv=", "data.csv: must be a path, not empty text; null, where none is needed"),
    ],
)
def test_one_for_a_key_that_cannot_be_so_is_refused(override: str, message: str) -> None:
    source = ["data.source=table", "data.root=x"] if "csv" in override else ["data.source=drawn"]
    assert problem(*source, override) == f"command line: {message}"


def test_what_a_recorded_configuration_does_not_say_is_what_its_version_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.config.load.OLDER", {"data.size": 7, "data.nowhere": 1})
    file = tmp_path / "config.yaml"
    file.write_text("data: {source: drawn}\n")
    assert load_config(Run, file).data == Drawn(source="drawn", size="auto")
    assert load_recorded(Run, file).data == Drawn(source="drawn", size=7)
    assert load_recorded(Run, file, ["data.size=3"]).data == Drawn(source="drawn", size=3)
    file.write_text("data: {source: drawn, size: auto}\n")
    assert load_recorded(Run, file) == load_config(Run, file)
    assert older_settings(Run, file) == []
