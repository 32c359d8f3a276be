"""Pydantic's findings in the words of a configuration's author: file, line, key, what is wrong, what would be right."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from engine.config.unused_keys import IdleKeys
from engine.config.yaml_reader import REPLACE_TAG, Node, kind_of

Keys = tuple[str | int, ...]

_EXPECTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text (in quotes if it looks like something else)",
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a section of keys",
    "none_required": "null",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "float_parsing": "a number",
    "greater_than": "greater than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "string_pattern_mismatch": "text that matches {pattern}",
    "too_short": "a list of at least {min_length} values",
    "too_long": "a list of at most {max_length} values",
}
"""How the sentence "must be ..., not X" goes on for pydantic's kinds of errors."""

_NOUNS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: _EXPECTED["string_type"],
    Path: "a path",
    list: "a list",
    tuple: "a list",
    set: "a list",
    frozenset: "a list",
    dict: "a mapping",
}
"""The same for the types that a union may have."""

_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}

_ELSEWHERE_CALLED = {
    "learning_rate": "lr",
    "wd": "weight_decay",
    "num_epochs": "epochs",
    "max_steps": "steps",
    "batch_size": "global_batch_size",
    "total_batch_size": "global_batch_size",
    "gradient_accumulation_steps": "accumulation",
    "grad_clip": "clip_grad_norm",
    "max_grad_norm": "clip_grad_norm",
    "amp": "precision",
    "dtype": "precision",
    "num_workers": "workers",
    "path": "root",
    "dataset": "source",
    "img_size": "image_size",
    "input_size": "image_size",
    "drop_path_rate": "drop_path",
    "smoothing": "label_smoothing",
    "grad_checkpointing": "activation_checkpointing",
    "scheduler": "schedule",
}
"""Names that other programs give to keys of ours."""

_SAID_OTHERWISE = {
    "pretrained": "finetune.weights: timm starts from the weights that timm publishes, finetune.weights: null from none"
}
"""Names that other programs give to what is a value of a key here, and how it is said."""


@dataclass(frozen=True)
class Finding:
    """One of pydantic's errors, traced to the key it is about.

    ``owner`` is the section that the last key was looked for in; ``unions`` the keys of all unions of types on the way,
    of which every member reports its own error; ``members`` the types of the last of them.
    """

    keys: Keys
    owner: type[BaseModel] | None
    unions: tuple[Keys, ...]
    members: list[Any]
    error: Any

    @property
    def is_rival(self) -> bool:
        """Whether other members of a union report errors of the same value."""
        return self.keys in self.unions


def explain(error: ValidationError, schema: type[BaseModel], tree: Node) -> list[str]:
    """One line for each thing that is wrong in ``tree``, in the order of the files' lines."""
    findings = [_trace(schema, found) for found in error.errors(include_url=False) if not _is_long_enough(found)]
    groups: dict[Any, list[Finding]] = {}
    for finding in _without_rival_members(findings):
        groups.setdefault(finding.keys if finding.is_rival else object(), []).append(finding)
    problems = [_describe(group, schema, tree) for group in groups.values()]
    placed = sorted(((tree.place_of(keys), keys, text) for keys, text in problems), key=lambda problem: problem[0])
    return [": ".join(part for part in (str(place), _dotted(keys), text) if part) for place, keys, text in placed]


def _is_long_enough(error: Any) -> bool:
    """Whether a list is called too short because pydantic does not count values that are wrong themselves."""
    return error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"]


def idle_keys(error: ValidationError, schema: type[BaseModel], tree: Node) -> tuple[list[Keys], list[Keys]]:
    """The keys without effect in ``tree``, see :mod:`engine.config.unused_keys`: those that were written below all that
    a decider of theirs says, which are inherited, and the others."""
    inherited: list[Keys] = []
    refused: list[Keys] = []
    for found in error.errors(include_url=False):
        idle = found.get("ctx", {}).get("error")
        if isinstance(idle, IdleKeys):
            section = _trace(schema, found).keys
            layers = [tree.layer_of((*section, *decider.split("."))) for decider in idle.deciders]
            decided = max((layer for layer in layers if layer is not None), default=None)
            for key in idle.keys:
                path = (*section, *key.split("."))
                written = tree.layer_of(path)
                if written is None:
                    continue
                below = decided is not None and written < decided
                (inherited if below else refused).append(path)
    return inherited, refused


def key_paths(annotation: Any, prefix: Keys = ()) -> Iterator[tuple[Keys, type[BaseModel]]]:
    """Every key that a schema knows, with the section it belongs to."""
    for member in _members(annotation):
        if _is_section(member):
            for name, info in member.model_fields.items():
                yield (*prefix, name), member
                yield from key_paths(info.annotation, (*prefix, name))


def _trace(schema: type[BaseModel], error: Any) -> Finding:
    """Follow pydantic's location through the types: it mixes keys with names of union members, which are no keys."""
    annotation: Any = schema
    owner: type[BaseModel] | None = None
    unions: tuple[Keys, ...] = ()
    rivals: list[Any] = []
    keys: Keys = ()
    for part in error["loc"]:
        members = _members(annotation)
        if len(members) > 1:
            annotation = next((member for member in members if _answers_to(member, part)), members[-1])
            if not (_is_section(annotation) and part in _discriminator(annotation)[1]):  # else it alone was asked
                unions, rivals = (*unions, keys), members
            continue
        if part == "[key]":  # the key itself of a mapping, not its value
            continue
        keys = (*keys, part)
        owner = members[0] if _is_section(members[0]) else None
        if owner is not None:
            annotation = owner.model_fields[part].annotation if part in owner.model_fields else Any
        else:
            inner = [arg for arg in get_args(members[0]) if arg is not Ellipsis] or [Any]
            annotation = inner[min(part, len(inner) - 1) if isinstance(part, int) else -1]
    return Finding(keys, owner, unions, rivals, error)


def _members(annotation: Any) -> list[Any]:
    """The types an annotation allows, but None, which pydantic does not name in its locations."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        return members if len(members) > 1 else _members(members[0])
    return [annotation]


def _is_section(annotation: Any) -> bool:
    # Python 3.10 takes list[int] for a type.
    return isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, BaseModel)


def _answers_to(member: Any, label: str | int) -> bool:
    """Is ``label`` pydantic's name for this member of a union: a discriminator's value, or its type's description?"""
    for inner in _members(member):
        if _is_section(inner) and label in _discriminator(inner)[1]:
            return True
        name = getattr(get_origin(inner) or inner, "__name__", "")
        if name and re.match(rf"(?:function-[a-z]+\[.*[, \[])?{re.escape(name)}\b", str(label), re.IGNORECASE):
            return True
    return False


def _discriminator(section: type[BaseModel]) -> tuple[str, tuple[Any, ...]]:
    """The field of a section that tells it from others, with its values: ``("name", ("adam", "adamw"))``.

    That is the first one that allows certain values only, and before others one that has to be given.
    """
    fields = [(name, info) for name, info in section.model_fields.items() if get_origin(info.annotation) is Literal]
    for name, info in sorted(fields, key=lambda field: not field[1].is_required()):
        return name, get_args(info.annotation)
    return "", ()


def _without_rival_members(findings: list[Finding]) -> list[Finding]:
    """Where a value is close to one member of a union, the other members' complaints are noise."""
    deeper = {union for finding in findings for union in finding.unions if finding.keys != union}
    specific = {finding.keys for finding in findings if finding.is_rival and _is_own_text(finding)}
    return [
        finding
        for finding in findings
        if not finding.is_rival
        or (finding.keys not in deeper and (finding.keys not in specific or _is_own_text(finding)))
    ]


def _is_own_text(finding: Finding) -> bool:
    return finding.error["type"] in ("value_error", "assertion_error")


def _describe(group: list[Finding], schema: type[BaseModel], tree: Node) -> tuple[Keys, str]:
    """The key to name and the text about it, from the errors that all members of a union have for one value."""
    first = group[0]
    error, kind = first.error, first.error["type"]
    if kind == "extra_forbidden":
        return first.keys, _unknown_key(first, schema, tree)
    if kind == "missing":
        *owner, last = first.keys
        if isinstance(last, int):
            return tuple(owner), f"must be a list of more values than {last}"
        return first.keys, "required but missing"
    if kind == "union_tag_not_found":
        return (*first.keys, error["ctx"]["discriminator"].strip("'")), "required but missing"
    if kind == "union_tag_invalid":
        tag = error["ctx"]["tag"]
        text = f"must be {_choices(error['ctx']['expected_tags'])}, not {tag!r}"
        keys = (*first.keys, error["ctx"]["discriminator"].strip("'"))
        return keys, text + _did_you_mean(tag, re.findall(r"'([^']*)'", error["ctx"]["expected_tags"]))
    if _is_own_text(first):
        return _named_key(first.keys, str(error["ctx"]["error"]), schema)
    if first.is_rival:
        right = [text for member in first.members for text in _right(member)]
        text = f"must be {_one_of(right)}, not {_given(error['input'], ' '.join(right))}"
        return first.keys, text + _did_you_mean(error["input"], [text.strip("'") for text in right if "'" in text])
    if kind not in _EXPECTED:
        return first.keys, f"{error['msg'][0].lower()}{error['msg'][1:]}, not {kind_of(error['input'])}"
    context = error.get("ctx", {})
    choices = re.findall(r"'([^']*)'", context["expected"]) if kind == "literal_error" else []
    text = f"must be {_EXPECTED[kind].format(**context)}, not {_given(error['input'], _EXPECTED[kind])}"
    return first.keys, text + _did_you_mean(error["input"], choices)


def _given(value: Any, expected: str) -> str:
    """What was given; of a list where one of another length is ``expected``, its length."""
    return f"of {len(value)}" if isinstance(value, list) and value and "list of" in expected else kind_of(value)


def _right(member: Any) -> list[str]:
    """What a member of a union takes: ``a whole number >= 0``, ``a list of 2 values``, or each of its words, quoted."""
    bounds: list[str] = []
    while get_origin(member) is Annotated:
        member, *metadata = get_args(member)
        for entry in metadata:
            for constraint in entry.metadata if isinstance(entry, FieldInfo) else [entry]:
                found = [(sign, getattr(constraint, name, None)) for name, sign in _BOUNDS.items()]
                bounds += [f"{sign} {limit}" for sign, limit in found if limit is not None]
    origin = get_origin(member) or member
    if origin is Literal:
        return [repr(value) for value in get_args(member)]
    if _is_section(origin):
        return [_EXPECTED["model_type"]]
    inner = get_args(member)
    length = f" of {len(inner)} values" if origin is tuple and Ellipsis not in inner else ""
    return [_NOUNS.get(origin, str(member)) + length + (" " + " and ".join(bounds) if bounds else "")]


def _one_of(choices: list[str]) -> str:
    *others, last = dict.fromkeys(choices)
    return f"{', '.join(others)} or {last}" if others else last


def _choices(expected: str) -> str:
    """Pydantic's ``'a', 'b', 'c'`` as ``'a', 'b' or 'c'``."""
    return " or ".join(expected.rsplit(", ", 1))


def _did_you_mean(word: Any, choices: list[str]) -> str:
    close = difflib.get_close_matches(word, choices, n=1) if isinstance(word, str) else []
    return f"; did you mean '{close[0]}'?" if close else ""


def _named_key(keys: Keys, text: str, schema: type[BaseModel]) -> tuple[Keys, str]:
    """A check over several keys may begin with the one it is about: ``optimizer.lr: ...``, ``optimizer.lr is ...``."""
    named = re.match(r"([A-Za-z_]\w*(?:\.\w+)*): |([A-Za-z_]\w*(?:\.\w+)+) ", text)
    if named is not None:
        path = tuple((named[1] or named[2]).split("."))
        known = {known for known, _ in key_paths(schema)}
        for candidate in ((*keys, *path), path):
            if candidate in known:
                return candidate, text[named.end() :]
    return keys, text


def _unknown_key(finding: Finding, schema: type[BaseModel], tree: Node) -> str:
    assert finding.owner is not None, "only sections forbid keys"
    *section, name = finding.keys
    known = list(key_paths(schema))
    variants = [owner for keys, owner in known if keys == finding.keys]
    if variants:
        key, values = _discriminator(variants[0])
        text = f"unknown key here; it belongs to {key}: {' or '.join(map(str, values))}"
    elif name in _SAID_OTHERWISE:
        text = f"unknown key; {_SAID_OTHERWISE[name]}"
    elif nearest := _nearest_key(str(name), list(finding.owner.model_fields), [keys for keys, _ in known]):
        text = f"unknown key; did you mean '{nearest}'?"
    else:
        text = f"unknown key; valid are {', '.join(finding.owner.model_fields)}"
    inherited = tree.place_of(finding.keys).file not in (tree.place.file, "command line")
    if inherited and section:
        text += f" ('{_dotted(tuple(section))}: {REPLACE_TAG}' in {tree.place.file} starts the section anew)"
    return text


def _nearest_key(name: str, own: list[str], everywhere: list[Keys]) -> str | None:
    """What the author of ``name`` meant: a key of the same section, else a very similar one of another."""
    elsewhere = {str(keys[-1]): _dotted(keys) for keys in reversed(everywhere)}
    for choices, cutoff in (({key: key for key in own}, 0.7), (elsewhere, 0.8), ({key: key for key in own}, 0.6)):
        # Other programs' names lead to ours, before a misspelling of ours does that is less alike.
        names = {other: choices[ours] for other, ours in _ELSEWHERE_CALLED.items() if ours in choices} | choices
        if close := difflib.get_close_matches(name, names, n=1, cutoff=cutoff):
            return names[close[0]]
    return None


def _dotted(keys: Keys) -> str:
    """``("a", "b", 0)`` as ``a.b[0]``."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")
