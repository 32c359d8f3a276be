"""YAML files as trees that remember where every key was written, with ``base:`` inheritance and merging.

Scalars follow YAML 1.2's core schema, with one exception: a decimal integer with leading zeros (``010``) stays text.
Only plain data can be read; there is no way from a file to a Python object.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Union

import yaml

from engine.config.paths import expand
from engine.errors import UserError
from engine.files import other_than_file, usable_path
from engine.text import shortened

REPLACE_TAG = "!replace"
"""Before a mapping (``optimizer: !replace {name: sgd}``): it takes the place of the base's instead of merging."""

_TAG = "tag:yaml.org,2002:"
SCALARS: dict[str, tuple[re.Pattern[str], Callable[[str], str | int | float | None]]] = {
    f"{_TAG}null": (re.compile(r"(?:~|null|Null|NULL|)$"), lambda text: None),
    f"{_TAG}bool": (re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), lambda text: text.lower() == "true"),
    f"{_TAG}int": (re.compile(r"(?:[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+)$"), lambda text: int(text, 0)),
    f"{_TAG}float": (
        re.compile(
            r"(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
    ),
    f"{_TAG}str": (re.compile(""), str),
}
"""What a plain scalar means: the first pattern that matches, and what makes a value of its text."""

MOST_VALUES = 100_000
"""Values of a file with aliases, which a few lines of them could make billions of."""


class Place(NamedTuple):
    """Where a value was written; ``line`` counts from 1 and is 0 for the command line."""

    file: str
    line: int = 0
    layer: int = 0
    """What is read over what: 0 is the file that was asked for, -1 are its bases, -2 theirs, 1 is the command line."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


COMMAND_LINE = Place("command line", layer=1)

Value = Union["dict[str, Node]", "list[Node]", str, int, float, bool, None]


@dataclass(frozen=True)
class Node:
    """A value and the place of its key; ``replaces`` mappings do not merge with what lies below them."""

    value: Value
    place: Place
    replaces: bool = False

    def plain(self) -> Any:
        """Returns the value as nested dicts and lists."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def way(self, keys: tuple[str | int, ...]) -> list[Node]:
        """Returns this node and those below it under each of ``keys``, as far as there are any."""
        nodes = [self]
        for key in keys:
            inner: Any = nodes[-1].value
            if not (key in inner if isinstance(inner, dict) else isinstance(inner, list) and key in range(len(inner))):
                break
            nodes.append(inner[key])
        return nodes

    def place_of(self, keys: tuple[str | int, ...]) -> Place:
        """Returns the place of the value under ``keys``, or of the nearest value around it that was written down."""
        return self.way(keys)[-1].place

    def value_of(self, keys: tuple[str | int, ...]) -> Any:
        """Returns the plain value under ``keys``; None if there is none."""
        nodes = self.way(keys)
        return nodes[-1].plain() if len(nodes) > len(keys) else None

    def leaves(self, keys: tuple[str | int, ...]) -> list[tuple[tuple[str | int, ...], int]]:
        """Returns where the values at or below ``keys`` are, but for mappings of others, each with its layer."""
        *_, node = nodes = self.way(keys)
        if len(nodes) <= len(keys):
            return []
        if isinstance(node.value, dict) and node.value:
            return [leaf for key in node.value for leaf in self.leaves((*keys, key))]
        return [(keys, node.place.layer)]

    def layer_of(self, keys: tuple[str | int, ...]) -> int | None:
        """Returns the uppermost layer in which something at or below ``keys`` was written down; None if it was not."""
        return max((layer for _, layer in self.leaves(keys)), default=None)

    def without(self, keys: tuple[str | int, ...]) -> Node:
        """Returns the tree but for what stands under ``keys``."""
        first, *inner = keys
        assert isinstance(self.value, dict)
        rest = {key: node for key, node in self.value.items() if key != first}
        if inner:
            rest[str(first)] = self.value[str(first)].without(tuple(inner))
        return replace(self, value=rest)


def read_file(path: Path) -> Node:
    """Reads the tree of the YAML file ``path`` over those of its bases.

    Raises:
        UserError: a file cannot be read, is not YAML, is not a mapping, repeats a key or inherits from itself.
    """
    return _read(path, Place(os.fspath(path)), ())


def read_value(text: str, key: str) -> Node:
    """Reads the YAML of a value that the command line gives for a dotted ``key``.

    Raises:
        UserError: it is not YAML, or YAML would cut something off.
    """
    return _Reader(COMMAND_LINE, key).read(text)


def merge(below: Node, above: Node) -> Node:
    """Puts ``above`` over ``below``: mappings merge key by key, anything else replaces what was there."""
    if above.replaces or not isinstance(below.value, dict) or not isinstance(above.value, dict):
        return above
    merged = dict(below.value)
    for key, node in above.value.items():
        merged[key] = merge(merged[key], node) if key in merged else node
    # A single overridden key does not move its whole section to the command line.
    place = above.place if above.place.line else below.place
    return Node(merged, place, below.replaces)


def _read(path: Path, asked_from: Place, chain: tuple[Path, ...]) -> Node:
    target = Path(os.path.realpath(path))  # of links in a circle, too
    if target in chain:
        cycle = " -> ".join(usable_path(p) for p in (*chain[chain.index(target) :], target))
        raise UserError(f"{asked_from}: base: a configuration cannot inherit from itself: {cycle}")
    shown = usable_path(path)
    asked = f"{asked_from}: base: " if chain else ""
    try:
        if kind := other_than_file(target):  # a pipe's other end may never come
            raise UserError(f"{asked}{shown}: is {kind}; name a file of YAML")
        text = target.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{asked}{shown}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{asked}{shown}: is not UTF-8 text") from None
    tree = _Reader(Place(shown, 1, -len(chain))).read(text)
    if tree.value is None:
        raise UserError(f"{asked}{shown}: is empty; a configuration has at least a model and data")
    if not isinstance(tree.value, dict):
        raise UserError(f"{tree.place}: must be a mapping of keys to values, not {kind_of(tree.plain())}")
    own = Node({key: node for key, node in tree.value.items() if key != "base"}, tree.place)
    if "base" not in tree.value:
        return own
    below = Node({}, tree.place)
    for base, place in _bases(tree.value["base"]):
        try:
            file = target.parent / expand(base)
        except ValueError as error:
            raise UserError(f"{place}: base: {error}") from None
        below = merge(below, _read(file, place, (*chain, target)))
    return merge(below, own)


def _bases(node: Node) -> list[tuple[str, Place]]:
    entries = node.value if isinstance(node.value, list) else [node]
    if not all(isinstance(entry.value, str) and entry.value for entry in entries):
        raise UserError(f"{node.place}: base: must be a path or a list of paths, relative to this file")
    return [(str(entry.value), entry.place) for entry in entries]


def kind_of(value: Any) -> str:
    """Formats a plain value for messages: short ones as YAML would write them, long ones by their kind."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return shortened(json.dumps(value) if value is None or isinstance(value, bool) else repr(value), 80)


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with YAML 1.2's plain scalars; it is used to compose nodes, never to construct objects."""

    yaml_implicit_resolvers: dict[str, Any] = {}


for _tag, (_pattern, _) in SCALARS.items():
    _Loader.add_implicit_resolver(_tag, _pattern, None)


@dataclass
class _Reader:
    """Turns the text of one file into a :class:`Node`."""

    beginning: Place
    key: str = ""
    """The dotted key that a value of the command line is for."""
    done: dict[int, tuple[Value, int] | None] = field(default_factory=dict)
    """Value and size of what was read before, which an alias may stand for; None for what is being read."""
    total: int = 0
    """Values so far, those behind aliases as often as they are used."""

    def read(self, text: str) -> Node:
        try:
            root = yaml.compose(text, Loader=_Loader)
            if self.key and (comment := text[root.end_mark.index if root else 0 :].strip()):
                raise self.fault(self.beginning, f"{comment!r} is a comment in YAML; leave it away, or use quotes")
            return Node(None, self.beginning) if root is None else self.node(root, self.beginning)
        except yaml.YAMLError as error:
            raise self.syntax_error(error, text) from None
        except RecursionError:
            raise self.fault(self.beginning, "is nested too deeply") from None

    def fault(self, place: Place, text: str) -> UserError:
        return UserError(": ".join(filter(None, (str(place), self.key, text))))

    def place(self, mark: yaml.Mark) -> Place:
        return self.beginning._replace(line=mark.line + 1) if self.beginning.line else self.beginning

    def node(self, node: yaml.Node, place: Place) -> Node:
        before, is_alias = self.total, id(node) in self.done
        if not is_alias:
            self.done[id(node)] = None
            value = self.value(node)
            self.total += 1
            self.done[id(node)] = value, self.total - before
        found = self.done[id(node)]
        if found is None:
            raise self.fault(place, "an alias may not contain itself")
        self.total = before + found[1]
        if is_alias and self.total > MOST_VALUES:
            raise self.fault(place, f"the aliases stand for more than {MOST_VALUES:,} values")
        return Node(found[0], place, node.tag == REPLACE_TAG)

    def value(self, node: yaml.Node) -> Value:
        if isinstance(node, yaml.MappingNode) and node.tag in (f"{_TAG}map", REPLACE_TAG):
            return self.mapping(node)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            return [self.node(item, self.place(item.start_mark)) for item in node.value]
        if isinstance(node, yaml.ScalarNode) and node.tag in SCALARS:
            pattern, convert = SCALARS[node.tag]
            text = self.text(node)
            if node.tag == f"{_TAG}int" and pattern.match(text) and not (len(text) < 99 and abs(int(text, 0)) < 2**63):
                what = f"{shortened(text, 80)} has more than 64 bits; as text it stands in quotes"
                raise self.fault(self.place(node.start_mark), what)
            if pattern.match(text):
                return convert(text)
        raise self.fault(self.place(node.start_mark), f"the tag {node.tag.replace(_TAG, '!!')} cannot be used here")

    def mapping(self, node: yaml.MappingNode) -> dict[str, Node]:
        """Keys are text as it was written: ``1`` and ``no`` name classes as well as words do."""
        mapping: dict[str, Node] = {}
        for key, value in node.value:
            place = self.place(key.start_mark)
            if not isinstance(key, yaml.ScalarNode):
                raise self.fault(place, "a key must be text")
            if node.flow_style and ":" in key.value and value.start_mark.index == value.end_mark.index:
                spaced = ": ".join(key.value.split(":", 1))
                raise self.fault(place, f"{key.value}: wants a space behind the colon: {{{spaced}}}")
            name = self.text(key)
            if name in mapping:
                raise self.fault(place, f"{name}: repeats the key of {mapping[name].place}")
            mapping[name] = self.node(value, place)
        return mapping

    def text(self, node: yaml.ScalarNode) -> str:
        """A scalar's characters. Escapes such as JSON's, of both halves of a surrogate pair, are one of them."""
        try:
            return str(node.value.encode("utf-16", "surrogatepass").decode("utf-16"))
        except UnicodeDecodeError:
            text = f"{node.value!r} has half of a surrogate pair, which is no character"
            raise self.fault(self.place(node.start_mark), text) from None

    def syntax_error(self, error: yaml.YAMLError, text: str) -> UserError:
        place = self.beginning
        if isinstance(error, yaml.MarkedYAMLError):
            begun, mark = error.context_mark, error.problem_mark or error.context_mark
            place = self.place(mark) if mark else place
            problem = ", ".join(part for part in (error.context, error.problem) if part)
            problem += f" (begun in line {begun.line + 1})" if begun and mark and begun.line != mark.line else ""
        else:
            position = getattr(error, "position", 0)
            place = place._replace(line=place.line and text.count("\n", 0, position) + 1)
            problem = f"the character {text[position : position + 1]!r} is not allowed"
        if "'\\t'" in problem:
            problem += " (YAML indents with spaces, not with tabs)"
        return self.fault(place, f"is not valid YAML: {problem}")
