"""Configurations of every task, and what can be wrong with their text."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import strategies as st

from engine.config.yaml_reader import read_file
from engine.task.spec import known_tasks
from tests.environment import ROOT

TASKS = known_tasks()
TREES: list[tuple[str, dict[str, Any]]] = [
    (task, read_file(file).plain()) for task in TASKS for file in sorted((ROOT / "configs" / task).rglob("*.yaml"))
]
"""Each configuration, with what it inherits, beside the name of its task."""

SECTIONS = (
    "experiment", "model", "detection", "diffusion", "data", "augmentation", "loss", "optimizer", "schedule",
    "training", "finetune", "evaluation", "checkpoint", "logging", "distributed", "base",
)  # fmt: skip
ODD_TEXTS = (
    "", " ", "\t", "\r\n", "\r", "\ufeff", "\x00", "\x1b[31m", "\x85", "\u2028", "\u202e", "\U0001f41f", "e\u0301",
    "\n  ", ": ", "- ", " #", "#", "&a ", "*a", "!!python/object:os.system ", "!replace ", "!!binary ", "!!set ",
    "<<: ", "---\n", "...\n", "%YAML 1.1\n", "{", "}", "[", "]", ",", "'", '"', "|\n", ">\n", "? ", "@", "`", "~",
    "\\", "null", "true", "no", ".nan", ".inf", "-.inf", "1e999", "0x10", "0o17", "010", "1_000", "2024-01-01",
    "12:30", "9" * 400, "9" * 5000, str(2**63), str(2**63 - 1), "-1", "0", "$HOME", "${", "$$", "~nobody", "../", "/",
    "a" * 3000, "[" * 300, r'"\ud800"', r'"\ud83d\udc1f"', r'"\0"', r'"\e[1m"', r'{"\ud83d\udc1f": 1}',
    r'{"\udce9": 1}',
)  # fmt: skip
ODD_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 10**9, 10**30, -(10**30), 0.0, -0.0, 0.5, 1.5, 1e-320, 1e308, float("nan"),
    float("inf"), float("-inf"), "", " ", "auto", "none", "all", "timm", "head", [], {}, [[]], [None], {"": ""},
    [0, 0], [1, 1], [0.1, 0.2], ["a", "a"], {"a": {"b": None}}, {0: "head"}, {0.5: "all"}, {1e999: "all"}, {None: 1},
]  # fmt: skip
odd_texts = st.sampled_from(ODD_TEXTS) | st.text(max_size=8)
odd_values = (
    st.sampled_from(ODD_VALUES)
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.lists(st.integers(-2, 9) | st.floats(-1, 2) | st.text(max_size=3), max_size=4)
)


def written(tree: Any) -> str:
    return yaml.safe_dump(tree, allow_unicode=True, sort_keys=False, width=10**6)


def places(tree: Any, prefix: tuple = ()) -> list[tuple]:
    """Where there is a value in nested dicts and lists."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for key, value in inner for place in ((*prefix, key), *places(value, (*prefix, key)))]


def put(tree: Any, place: tuple, value: Any = ..., key: Any = None) -> Any:
    """Returns the tree with another value at a place, under another key if one is given; without it, without that."""
    first, *rest = place
    if isinstance(tree, list):
        inner = [put(item, tuple(rest), value, key) if rest else value for item in tree[first : first + 1]]
        return tree[:first] + [item for item in inner if item is not ...] + tree[first + 1 :]
    if rest:
        return {**tree, first: put(tree[first], tuple(rest), value, key)}
    items = [
        (key if key is not None and k == first else k, value if k == first and value is not ... else v)
        for k, v in tree.items()
    ]
    return dict(item for item, k in zip(items, tree, strict=True) if not (k == first and value is ... and key is None))


@st.composite
def trees(
    draw: st.DrawFn, base: dict[str, Any], keys: list[tuple[str, ...]], values: st.SearchStrategy = odd_values
) -> dict[str, Any]:
    """A configuration with up to three of its values, or of ``keys`` that it has not, made odd."""
    tree = base
    for _ in range(draw(st.integers(1, 3))):
        there = places(tree)
        if not there or draw(st.booleans()):
            *sections, name = draw(st.sampled_from(keys))
            odd: Any = {name: draw(values)}
            for section in reversed(sections):
                odd = {section: odd}
            tree = _over(tree, odd)
            continue
        place = draw(st.sampled_from(there))
        match draw(st.integers(0, 3)):
            case 0:
                tree = put(tree, place)
            case 1 if isinstance(place[-1], str):
                tree = put(tree, place, key=draw(odd_texts | st.sampled_from(SECTIONS)))
            case _:
                tree = put(tree, place, draw(values))
    return tree


def _over(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{key: _over(below.get(key), value) for key, value in above.items()}}


@st.composite
def texts(draw: st.DrawFn, base: str) -> bytes:
    """The text with up to four places cut out, doubled or written over, in some encoding."""
    text = base
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(text)))
        end = draw(st.integers(begin, min(len(text), begin + 40)))
        lines = text.splitlines(keepends=True)
        match draw(st.integers(0, 4)):
            case 0:
                text = text[:begin] + text[end:]
            case 1:
                text = text[:begin] + draw(odd_texts) + text[begin:]
            case 2:
                text = text[:begin] + draw(odd_texts) + text[end:]
            case 3 if lines:
                line = draw(st.integers(0, len(lines) - 1))
                text = "".join([*lines[: line + 1], *lines[line : line + draw(st.integers(1, 3))], *lines[line + 1 :]])
            case _:
                text = text.replace("\n", draw(st.sampled_from(["\r\n", "\r", "\n\n", "\n\t", "\n ", "\u2028"])))
    encoding = draw(st.sampled_from(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "latin-1", "utf-32"]))
    return text.encode(encoding, errors="replace")
