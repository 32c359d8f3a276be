"""Names that a person takes for the same, and those that only look a little alike."""

from __future__ import annotations

import pytest

from engine.look_alike import as_text, look, look_alikes, same_text, told_apart


@pytest.mark.parametrize(
    "name",
    ["caf\u00e9", "cafe\u0301", "caf%C3%A9", "caf\u00c3\u00a9", "caf\u251c\u2310", "caf\udce9"],
    ids=["NFC", "NFD", "URL", "UTF-8 as cp1252", "UTF-8 as cp437", "Latin-1"],
)
def test_one_text_in_many_encodings(name: str) -> None:
    assert same_text(name) == "caf\u00e9"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cat", "Cat"), ("cat", "cat "), ("cat", "\u0441at"), ("big cat", "big\u00a0cat"), ("big cat", "big__cat"),
        ("cat", "ca\u200bt"), ("\ufeffcat", "cat"), ("ＡＢ", "ab"), ("ill", "I1l"), ("Oslo", "0slo"), ("1", "1.0"),
        ("7", "007"), ("1.5", "1,50"), ("\u0130zmir", "izmir"), ("\u0410\u0412", "AB"), ("it's", "it\u2019s"),
        ("sea-bass", "sea\u2013bass"), ("-0", "0"),
    ],
)  # fmt: skip
def test_what_looks_alike(one: str, other: str) -> None:
    assert look(one) == look(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("cat", "cats"), ("1", "10"), ("schon", "sch\u00f6n"), ("\u732b", "\u72ac"), ("a b", "ab"), ("1", "a1")],
)
def test_what_does_not(one: str, other: str) -> None:
    assert look(one) != look(other)


def test_groups_and_how_they_are_told() -> None:
    assert look_alikes(["a", "b", "A", "1", "c", "1.0"]) == [["a", "A"], ["1", "1.0"]]
    assert told_apart("caf\u00e9", "cafe\u0301") == [r"'caf\xe9'", r"'cafe\u0301'"]
    assert told_apart("caf\u00e9", None, "\u732b") == ["'caf\u00e9'", "None", "'\u732b'"]


@pytest.mark.parametrize("name", ["\udce9", "\ud800", "a\udcffb\u732b"])
def test_any_name_can_be_written(name: str) -> None:
    as_text(name).encode()
    look(name).encode()
