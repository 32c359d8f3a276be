"""Files that a list spells otherwise than the disk does."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.images.file_names import locate


def files(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(
    ("there", "listed"),
    [
        ("sub/a.png", "sub\\a.png"),
        ("pic \u00e9 1.png", "pic%20%C3%A9%201.png"),
        ("cafe\u0301/a.png", "caf\u00e9/a.png"),
        ("caf\u00e9.png", "cafe\u0301.png"),
        ("caf\udce9.png", "caf\u00e9.png"),
        ("caf\u00c3\u00a9.png", "caf\u00e9.png"),
        ("Sub/P1.PNG", "sub/p1.png"),
        ("set/a.png", "/home/me/set/a.png"),
        ("a.png", "C:\\Users\\me\\a.png"),
        ("sub/a.png", "sub%2Fa.png"),
    ],
)
def test_the_one_file_that_a_name_can_mean_is_found(tmp_path: Path, there: str, listed: str) -> None:
    files(tmp_path, there, "other.png")
    found = locate(["other.png", listed, listed], tmp_path)
    assert found.spelt == {listed: there} and not found.missing


@pytest.mark.parametrize(
    ("there", "listed"),
    [
        (["a.png", "A.png"], ["a.PNG"]),  # two files
        (["a.png"], ["a.png", "A.png"]),  # which is listed itself
        (["a.png"], ["A.png", "a.PNG"]),  # two names
        (["a.png"], ["gone/a.png"]),  # perhaps another file
        (["set/a.png"], ["a.png"]),
        (["a.png"], [""]),
    ],
)
def test_what_a_name_may_or_may_not_mean_is_missing(tmp_path: Path, there: list[str], listed: list[str]) -> None:
    files(tmp_path, *there)
    found = locate(listed, tmp_path)
    assert not found.spelt
    assert found.missing == [number for number, name in enumerate(listed) if name not in there]


def test_the_nearest_file_is_named_for_the_first_few(tmp_path: Path) -> None:
    files(tmp_path, *(f"{number}_cat.png" for number in range(8)))
    found = locate([f"{number}_cats.png" for number in range(8)], tmp_path)
    assert found.missing == list(range(8)) and len(found.nearest) == 5
    assert found.near(3) == "; the nearest is '3_cat.png'" and found.near(7) == ""


def test_each_folder_is_listed_once_where_nothing_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    files(tmp_path, "a/1.png", "a/2.png", "b/1.png")
    listed, listdir = [], os.listdir
    monkeypatch.setattr("engine.images.file_names.os.listdir", lambda folder: listed.append(folder) or listdir(folder))
    assert not locate(["a/1.png", "a/2.png", "b/1.png"], tmp_path).missing
    assert sorted(listed) == [tmp_path / "a", tmp_path / "b"]


def test_files_that_no_name_names_are_counted(tmp_path: Path) -> None:
    files(tmp_path, "a/1.png", "a/2.PNG", "a/3.png", "a/.4.png", "a/5.txt", "b/6.png", "c/7.png")
    names = ["a/1.png", "./a/2.PNG", "b/6.PNG"]
    assert locate(names, tmp_path).others == 0
    found = locate(names, tmp_path, count_others=True)
    assert (found.others, found.other) == (1, "a/3.png") and found.spelt == {"b/6.PNG": "b/6.png"}


def test_it_is_given_up_where_no_name_means_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path, "A.png")
    assert locate(["x.png", "y.png", "a.png"], tmp_path).spelt == {"a.png": "A.png"}
    monkeypatch.setattr("engine.images.file_names.TRIED", 2)
    assert locate(["x.png", "y.png", "a.png"], tmp_path).missing == [0, 1, 2]
