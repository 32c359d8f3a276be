"""YAML files: scalars of YAML 1.2, places, inheritance, and what is refused."""

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.config.yaml_reader import COMMAND_LINE, Node, Place, merge, read_file, read_value
from engine.errors import UserError


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str | bytes) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(text: str | bytes) -> Any:
    return read_file(write("a.yaml", text)).plain()


def refusal(text: str | bytes, name: str = "a.yaml") -> str:
    with pytest.raises(UserError) as caught:
        read_file(write(name, text))
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(word, word) for word in ("no", "on", "off", "yes", "y", "No", "010", "-010", "12:00", "1:30:00", "1_000")],
        *[
            (word, word)
            for word in ("2024-01-01", "0b11", "0o8", "0xG", "1e", "e1", ".", "1.2.3", "nan", "inf", "=", "<<")
        ],
        *[(word, None) for word in ("null", "~", "", "Null")],
        *[(word, True) for word in ("true", "True", "TRUE")],
        *[("false", False), ("0", 0), ("-1", -1), ("+7", 7), ("0o17", 15), ("0x1F", 31), ("123456789", 123456789)],
        *[("1e-3", 1e-3), ("1E3", 1000.0), ("-1e+3", -1000.0), ("1.", 1.0), (".5", 0.5), ("010.5", 10.5), ("5.0", 5.0)],
        *[
            (".inf", math.inf),
            ("-.INF", -math.inf),
            ("'1'", "1"),
            ('"no"', "no"),
            ("!!str 1", "1"),
            ("!!float '1.5'", 1.5),
        ],
    ],
)
def test_scalars(text: str, value: Any) -> None:
    result = read(f"key: {text}\n")["key"]
    assert result == value
    assert type(result) is type(value)
    assert read_value(text, "key").plain() == value


def test_nan() -> None:
    assert math.isnan(read("key: .nan")["key"])


def test_keys_are_text_as_written() -> None:
    assert read("1: a\nno: b\n010: c\nnull: d\n") == {"1": "a", "no": "b", "010": "c", "null": "d"}


def test_places_are_those_of_the_keys() -> None:
    tree = read_file(write("a.yaml", "# comment\na:\n  b: 1\n  c:\n    - x\n    - y\n\nd: {e: {}}\n"))
    places = {keys: tree.place_of(keys).line for keys in [(), ("a",), ("a", "b"), ("a", "c", 1), ("d", "e")]}
    assert places == {(): 1, ("a",): 2, ("a", "b"): 3, ("a", "c", 1): 6, ("d", "e"): 8}
    assert tree.place_of(("a", "missing", "deeper")) == Place("a.yaml", 2)
    assert str(tree.place_of(("a",))) == "a.yaml:2"


def test_aliases_are_copies() -> None:
    assert read("a: &x {b: [1]}\nc: *x\n") == {"a": {"b": [1]}, "c": {"b": [1]}}


def test_bases_merge_mappings_and_replace_the_rest() -> None:
    write("one.yaml", "a: {x: 1, y: {p: 1, q: 1}}\nl: [1, 2]\ns: 1\nm: 3\n")
    write("more/two.yaml", "base: ../three.yaml\na: {y: {q: 2}}\n")
    write("three.yaml", "a: {z: 3, y: {r: 3}}\ns: 3\n")
    tree = read("base: [one.yaml, more/two.yaml]\nl: [3]\nm: {k: 1}\na: {x: null}\n")
    assert tree == {"a": {"x": None, "y": {"p": 1, "q": 2, "r": 3}, "z": 3}, "l": [3], "s": 3, "m": {"k": 1}}


def test_a_base_is_found_beside_the_file_a_link_leads_to() -> None:
    write("real/base.yaml", "a: 1\n")
    write("real/run.yaml", "base: base.yaml\n")
    Path("link.yaml").symlink_to(Path("real/run.yaml").resolve())
    assert read_file(Path("link.yaml")).plain() == {"a": 1}


def test_replace_drops_what_lies_below_at_any_distance() -> None:
    write("one.yaml", "a: {x: 1}\n")
    write("two.yaml", "a: !replace\n  y: 2\n")
    assert read("base: [one.yaml, two.yaml]\na: {z: 3}\n")["a"] == {"y": 2, "z": 3}
    write("mid.yaml", "base: two.yaml\na: {z: 3}\n")
    assert read("base: [one.yaml, mid.yaml]\n")["a"] == {"y": 2, "z": 3}


def test_merged_values_keep_the_place_they_were_written_at() -> None:
    write("one.yaml", "a:\n  x: 1\n  y: 1\n")
    tree = read_file(write("a.yaml", "base: one.yaml\na:\n  y: 2\n"))
    tree = merge(tree, Node({"a": Node({"z": read_value("3", "a.z")}, COMMAND_LINE)}, COMMAND_LINE))
    assert [str(tree.place_of(("a", key))) for key in "xyz"] == ["one.yaml:2", "a.yaml:3", "command line"]
    assert str(tree.place_of(("a",))) == "a.yaml:2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.yaml: is empty; a configuration has at least a model and data"),
        ("# nothing\n", "a.yaml: is empty; a configuration has at least a model and data"),
        ("- a\n", "a.yaml:1: must be a mapping of keys to values, not a list"),
        ("text\n", "a.yaml:1: must be a mapping of keys to values, not 'text'"),
        ("a: 1\nb: 2\na: 3\n", "a.yaml:3: a: repeats the key of a.yaml:1"),
        ("a:\n  b: 1\n  b: 2\n", "a.yaml:3: b: repeats the key of a.yaml:2"),
        ("a: &x [*x]\n", "a.yaml:1: an alias may not contain itself"),
        (
            "a: !!python/object/apply:os.system [ls]\n",
            "a.yaml:1: the tag !!python/object/apply:os.system cannot be used here",
        ),
        ("\na: !mine 3\n", "a.yaml:2: the tag !mine cannot be used here"),
        ("a: !!int x\n", "a.yaml:1: the tag !!int cannot be used here"),
        ("? [a, b]\n: 1\n", "a.yaml:1: a key must be text"),
        ("base: 3\na: 1\n", "a.yaml:1: base: must be a path or a list of paths, relative to this file"),
        ("a: 1\nbase: [a.yaml, 3]\n", "a.yaml:2: base: must be a path or a list of paths, relative to this file"),
        (b"a: \xff\xfe\n", "a.yaml: is not UTF-8 text"),
        ("a: 1\nb: \x07\n", "a.yaml:2: is not valid YAML: the character '\\x07' is not allowed"),
        ("a: *x\n", "a.yaml:1: is not valid YAML: found undefined alias 'x'"),
        ("base:\n  - gone.yaml\n", "a.yaml:2: base: gone.yaml: cannot be read: No such file or directory"),
        ("base: .\n", "a.yaml:1: base: .: is a folder; name a file of YAML"),
        ("a:\n  'b': \"\\ud800\"\n", r"a.yaml:2: '\ud800' has half of a surrogate pair, which is no character"),
        ('"\\udce9": 1\n', r"a.yaml:1: '\udce9' has half of a surrogate pair, which is no character"),
        (
            "a: 1\nb: -9223372036854775808\n",
            "a.yaml:2: -9223372036854775808 has more than 64 bits; as text it stands in quotes",
        ),
        ("base: 'a\\0'\n".replace("'", '"'), r"a.yaml:1: base: no path can have the character \0: 'a\x00'"),
        ("base: loop/x\n", "a.yaml:1: base: loop/x: cannot be read: Too many levels of symbolic links"),
    ],
)
def test_refusals(text: str | bytes, message: str) -> None:
    Path("loop").symlink_to("loop")
    assert refusal(text) == message


def test_both_halves_of_a_surrogate_pair_are_a_character_as_in_json() -> None:
    assert read(r'{"\ud83d\udc1f": "\ud83d\udc1f"}') == {"🐟": "🐟"}


def test_whole_numbers_of_thousands_of_digits_are_refused() -> None:
    assert re.fullmatch(
        r"a\.yaml:1: 9+…9+ has more than 64 bits; as text it stands in quotes", refusal("a: " + "9" * 5000)
    )
    assert read("a: 9223372036854775807\nb: '" + "9" * 5000 + "'\n") == {"a": 2**63 - 1, "b": "9" * 5000}


def test_aliases_cannot_make_much_of_little() -> None:
    lines = ["v0: &v0 [1]", *(f"v{i}: &v{i} [{', '.join([f'*v{i - 1}'] * 10)}]" for i in range(1, 7))]
    assert refusal("\n".join(lines)) == "a.yaml:5: the aliases stand for more than 100,000 values"
    assert read("\n".join(lines[:3]))["v2"] == [[[1]] * 10] * 10


def test_what_is_nested_beyond_all_measure_is_refused() -> None:
    assert refusal("a: " + "[" * 5000) == "a.yaml:1: is nested too deeply"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\n\tb: 2\n", 2, "with spaces, not with tabs"),
        ("a: [1,\nb: 2\n", 3, "expected ',' or ']', but got '<stream end>' (begun in line 1)"),
        ("a: 1\n  b: 2\n", 2, "mapping values are not allowed here"),
        ("a: 1\n---\nb: 2\n", 2, "expected a single document"),
        ("a: 'x\n", 2, "unexpected end of stream"),
    ],
)
def test_syntax_errors_name_the_line(text: str, line: int, words: str) -> None:
    message = refusal(text)
    assert message.startswith(f"a.yaml:{line}: is not valid YAML: ")
    assert words in message


def test_a_cycle_names_its_chain() -> None:
    write("b.yaml", "base: sub/c.yaml\n")
    write("sub/c.yaml", "x: 1\nbase: ../a.yaml\n")
    assert refusal("base: b.yaml\n") == (
        "sub/c.yaml:2: base: a configuration cannot inherit from itself: a.yaml -> b.yaml -> sub/c.yaml -> a.yaml"
    )
    assert refusal("base: a.yaml\n").endswith("a configuration cannot inherit from itself: a.yaml -> a.yaml")


def test_two_bases_may_share_one() -> None:
    write("root.yaml", "a: 1\n")
    write("b.yaml", "base: root.yaml\nb: 1\n")
    write("c.yaml", "base: root.yaml\nc: 1\n")
    assert read("base: [b.yaml, c.yaml]\n") == {"a": 1, "b": 1, "c": 1}


def test_unreadable_files_are_refused() -> None:
    with pytest.raises(UserError, match=r"^gone\.yaml: cannot be read: No such file or directory$"):
        read_file(Path("gone.yaml"))
    with pytest.raises(UserError, match=r"^\.: is a folder; name a file of YAML$"):
        read_file(Path("."))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_what_is_no_file_is_not_read_from(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "run.yaml")
    with pytest.raises(UserError, match=r"run\.yaml: is a (named pipe|device); name a file"):
        read_file(tmp_path / "run.yaml")


def test_a_byte_order_mark_and_windows_line_ends_are_read() -> None:
    assert read(b"\xef\xbb\xbfa: 1\r\nb: x\r\n") == {"a": 1, "b": "x"}
