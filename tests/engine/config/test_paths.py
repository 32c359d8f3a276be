"""Paths in a configuration: variables, home folders, links, and that what is written reads back."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config.load import dump_config, load_config
from engine.config.paths import AbsolutePath, absolute, expand
from engine.config.section import Section
from engine.errors import UserError


class Places(Section):
    root: AbsolutePath | None = None
    weights: AbsolutePath | str | None = None
    tables: AbsolutePath | dict[str, AbsolutePath] | None = None


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("NOWHERE", raising=False)


def load(text: str, *overrides: str) -> Places:
    Path("run.yaml").write_text(text)
    return load_config(Places, Path("run.yaml"), overrides)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("$SCRATCH/data", "/scratch/me/data"),
        ("${SCRATCH}data", "/scratch/medata"),
        ("a$$SCRATCH", "a$SCRATCH"),
        ("100$", "100$"),
        ("a$-b", "a$-b"),
        ("a~", "a~"),
    ],
)
def test_variables_are_put_in(text: str, path: str) -> None:
    assert expand(text) == path
    assert load(f"root: '{text}'\n").root == Path.cwd() / path
    assert load("{}\n", f"tables={{val: '{text}'}}").tables == {"val": Path.cwd() / path}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("$NOWHERE/x", "the environment variable NOWHERE is not set"),
        ("${NOWHERE}", "the environment variable NOWHERE is not set"),
        ("$EMPTY/x", "the environment variable EMPTY is empty"),
        ("~no_such_user/x", "there is no user of the name in '~no_such_user/x'"),
        ("a/" + "é" * 128, "no path can be as long as 'a/é"),
        ("a/" * 3000, "no path can be as long as 'a/a/"),
    ],
)
def test_what_cannot_be_put_in_is_named_with_its_line(text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        load(f"# places\nroot: {text}\n")
    assert str(caught.value).startswith(f"run.yaml:2: root: {words}")
    with pytest.raises(UserError, match=r"^command line: root: "):
        load("{}\n", f"root={text}")
    with pytest.raises(UserError, match=r"^run\.yaml:1: base: "):
        load(f"base: [{text.replace('{', '').replace('}', '')}]\n")


def test_bases_are_found_by_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "base.yaml").write_text("root: /data\n")
    monkeypatch.setenv("RECIPES", str(tmp_path / "recipes"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("base: $RECIPES/base.yaml\n").root == load("base: ~/recipes/base.yaml\n").root == Path("/data")


def test_a_dollar_in_a_path_reads_back() -> None:
    for config in (load("root: a$$b\n"), load("tables: {val: $$SCRATCH}\n"), load("weights: $$$$\n")):
        assert load(dump_config(config)) == config
    assert Places(root=Path("$NOWHERE")).root == Path.cwd() / "$NOWHERE"


def test_links_stay_in_paths_but_dots_after_them_are_where_the_link_leads(tmp_path: Path) -> None:
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    Path("link").symlink_to(tmp_path / "disk" / "deep")
    assert absolute(Path("link/x")) == tmp_path / "link" / "x"
    assert absolute(Path("link/../x")) == tmp_path / "disk" / "x"
