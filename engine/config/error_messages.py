"""Pydantic's findings in the words of a configuration's author: file, line, key, what is wrong, what would be right."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from engine.config.section import Section, UnusedKeys, Variants, variants_of
from engine.config.type_words import SECTION, TEXT, is_section, key_paths, members, one_of, words
from engine.config.yaml_reader import REPLACE_TAG, Node, kind_of

Keys = tuple[str | int, ...]

_EXPECTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": TEXT,
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a mapping",
    "model_type": SECTION,
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


MOST_NAMED = 4
"""Variants that a message names."""


@dataclass(frozen=True)
class Finding:
    """One of pydantic's errors, traced to the key it is about.

    ``owner`` is the section that the last key was looked for in, and ``variants`` tells it from others, if there are
    any; ``unions`` are the keys of all other unions of types on the way, of which every member reports its own error;
    ``members`` the types of the last of them.
    """

    keys: Keys
    owner: type[BaseModel] | None
    variants: Variants | None
    unions: tuple[Keys, ...]
    members: list[Any]
    error: Any

    @property
    def is_rival(self) -> bool:
        """Whether other members of a union report errors of the same value."""
        return self.keys in self.unions

    @property
    def decider(self) -> Keys:
        """The key that tells the variants apart, if this one belongs to another variant; else none."""
        if self.variants is None or self.error["type"] != "extra_forbidden":
            return ()
        return (*self.keys[:-1], self.variants.key) if self.variants.having(str(self.keys[-1])) else ()


def explain(error: ValidationError, schema: type[Section], tree: Node) -> list[str]:
    """Returns one line for each thing that is wrong in ``tree``, in the order of the files' lines."""
    findings = [_trace(schema, found) for found in error.errors(include_url=False) if not _is_long_enough(found)]
    groups: dict[Any, list[Finding]] = {}
    for finding in _without_rival_members(findings):
        groups.setdefault(finding.keys if finding.is_rival else object(), []).append(finding)
    problems = [problem for group in groups.values() for problem in _describe(group, schema, tree)]
    wrong = {keys for keys, _ in problems}
    for finding in findings:
        if finding.decider and finding.decider not in wrong:
            problems += [(leaf, _of_another_variant(finding, tree)) for leaf, _ in tree.leaves(finding.keys)]
    placed = sorted(((tree.place_of(keys), keys, text) for keys, text in problems), key=lambda problem: problem[0])
    return [": ".join(part for part in (str(place), dotted(keys), text) if part) for place, keys, text in placed]


def _is_long_enough(error: Any) -> bool:
    """Whether a list is called too short because pydantic does not count values that are wrong themselves."""
    return error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"]


def left_out(error: ValidationError, schema: type[Section], tree: Node) -> list[Keys]:
    """Returns the keys of ``tree`` without effect that were written below all that decides so, which are inherited."""
    found: list[Keys] = []
    for finding in (_trace(schema, entry) for entry in error.errors(include_url=False)):
        if finding.decider:
            leaves = [leaf for leaf, _ in tree.leaves(finding.keys)]
            below = [leaf for leaf in leaves if _is_below(tree, leaf, [finding.decider])]
            found += [finding.keys] if below == leaves else below
        for unused in _unused(finding):
            deciders = [(*finding.keys, *key.split(".")) for key in unused.deciders]
            keys = [(*finding.keys, *key.split(".")) for key in unused.keys]
            found += [path for path in keys if _is_below(tree, path, deciders)]
    return found


def _is_below(tree: Node, keys: Keys, deciders: list[Keys]) -> bool:
    layers = [layer for layer in map(tree.layer_of, deciders) if layer is not None]
    written = tree.layer_of(keys)
    return bool(layers) and written is not None and written < max(layers)


def _unused(finding: Finding) -> tuple[Any, ...]:
    error = finding.error.get("ctx", {}).get("error")
    return error.found if isinstance(error, UnusedKeys) else ()


def _trace(schema: type[BaseModel], error: Any) -> Finding:
    """Follow pydantic's location through the types: it mixes keys with names of union members, which are no keys."""
    annotation: Any = schema
    variants: Variants | None = None  # of this annotation
    owner: type[BaseModel] | None = None
    owned_by: Variants | None = None
    unions: tuple[Keys, ...] = ()
    rivals: list[Any] = []
    keys: Keys = ()
    for part in error["loc"]:
        choices = members(annotation)
        if len(choices) > 1:
            annotation = next((member for member in choices if _answers_to(member, part)), choices[-1])
            if variants is None:  # else it alone was asked
                unions, rivals = (*unions, keys), choices
            continue
        if part == "[key]":  # the key itself of a mapping, not its value
            continue
        keys = (*keys, part)
        owner = choices[0] if is_section(choices[0]) else None
        owned_by = variants
        if owner is not None:
            field = owner.model_fields.get(part)
            annotation, variants = (Any, None) if field is None else (field.annotation, variants_of(field))
        else:
            inner = [arg for arg in get_args(choices[0]) if arg is not Ellipsis] or [Any]
            annotation, variants = inner[min(part, len(inner) - 1) if isinstance(part, int) else -1], None
    told_apart_by = variants if error["type"].startswith("union_tag") else owned_by
    return Finding(keys, owner, told_apart_by, unions, rivals, error)


def _answers_to(member: Any, label: str | int) -> bool:
    """Is ``label`` pydantic's name for this member of a union?"""
    for inner in members(member):
        name = getattr(get_origin(inner) or inner, "__name__", "")
        if name and re.match(rf"(?:function-[a-z]+\[.*[, \[])?{re.escape(name)}\b", str(label), re.IGNORECASE):
            return True
    return False


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


def _describe(group: list[Finding], schema: type[BaseModel], tree: Node) -> list[tuple[Keys, str]]:
    """Returns the keys to name and what to say of each, from the errors that all members of a union have of a value."""
    first = group[0]
    error, kind = first.error, first.error["type"]
    if kind == "extra_forbidden":
        return [] if first.decider else [(first.keys, _unknown_key(first, schema, tree))]
    if unused := _unused(first):
        return [((*first.keys, *found.keys[0].split(".")), found.text) for found in unused]
    if kind == "missing":
        *owner, last = first.keys
        if isinstance(last, int):
            return [(tuple(owner), f"must be a list of more values than {last}")]
        return [(first.keys, "required but missing")]
    if kind.startswith("union_tag"):
        return [_wrong_variant(first)]
    if _is_own_text(first):
        return [_named_key(first.keys, str(error["ctx"]["error"]), schema)]
    return [(first.keys, _wrong_value(first))]


def _wrong_variant(finding: Finding) -> tuple[Keys, str]:
    variants = finding.variants
    assert variants is not None, "only variants have tags"
    keys = (*finding.keys, variants.key)
    if finding.error["type"] == "union_tag_not_found":
        return keys, "required but missing"
    value = finding.error["input"][variants.key]
    choices = [name for member in variants.members for name in variants.names(member)]
    return keys, f"must be {one_of(list(map(repr, choices)))}, not {kind_of(value)}" + _did_you_mean(value, choices)


def _wrong_value(finding: Finding) -> str:
    error, kind = finding.error, finding.error["type"]
    if finding.is_rival:
        right = [text for member in finding.members for text in words(member)]
        text = f"must be {one_of(right)}, not {_given(error['input'], ' '.join(right))}"
        return text + _did_you_mean(error["input"], [text.strip("'") for text in right if "'" in text])
    if kind not in _EXPECTED:
        return f"{error['msg'][0].lower()}{error['msg'][1:]}, not {kind_of(error['input'])}"
    context = error.get("ctx", {})
    choices = re.findall(r"'([^']*)'", context["expected"]) if kind == "literal_error" else []
    text = f"must be {_EXPECTED[kind].format(**context)}, not {_given(error['input'], _EXPECTED[kind])}"
    return text + _did_you_mean(error["input"], choices)


def _given(value: Any, expected: str) -> str:
    """What was given; of a list where one of another length is ``expected``, its length."""
    return f"of {len(value)}" if isinstance(value, list) and value and "list of" in expected else kind_of(value)


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


def _of_another_variant(finding: Finding, tree: Node) -> str:
    """Returns what to say of a key that belongs to other variants of its section than the one that is chosen."""
    variants, owner = finding.variants, finding.owner
    assert variants is not None and owner is not None
    chosen = tree.value_of(finding.decider)
    if chosen is None:
        chosen = owner.model_fields[variants.key].get_default()
    names = [f"{value}'s" for value in variants.having(str(finding.keys[-1]))]
    shown = one_of(names, "and") if len(names) <= MOST_NAMED else f"{', '.join(names[:MOST_NAMED])}, …"
    return f"{chosen} has no such key; it is {shown} ({dotted(finding.decider)})"


def _unknown_key(finding: Finding, schema: type[BaseModel], tree: Node) -> str:
    assert finding.owner is not None, "only sections forbid keys"
    *section, name = finding.keys
    everywhere: list[Keys] = [keys for keys, _ in key_paths(schema)]
    if name in _SAID_OTHERWISE:
        text = f"unknown key; {_SAID_OTHERWISE[name]}"
    elif nearest := nearest_key(str(name), list(finding.owner.model_fields), everywhere):
        text = f"unknown key; did you mean '{nearest}'?"
    else:
        text = f"unknown key; valid are {', '.join(finding.owner.model_fields)}"
    inherited = tree.place_of(finding.keys).file not in (tree.place.file, "command line")
    if inherited and section:
        text += f" ('{dotted(tuple(section))}: {REPLACE_TAG}' in {tree.place.file} starts the section anew)"
    return text


def nearest_key(name: str, own: list[str], everywhere: list[Keys]) -> str | None:
    """Returns what the author of ``name`` meant: a key of the same section, else a very similar one of another."""
    elsewhere = {str(keys[-1]): dotted(keys) for keys in reversed(everywhere)}
    for choices, cutoff in (({key: key for key in own}, 0.7), (elsewhere, 0.8), ({key: key for key in own}, 0.6)):
        # Other programs' names lead to ours, before a misspelling of ours does that is less alike.
        names = {other: choices[ours] for other, ours in _ELSEWHERE_CALLED.items() if ours in choices} | choices
        if close := difflib.get_close_matches(name, names, n=1, cutoff=cutoff):
            return names[close[0]]
    return None


def dotted(keys: Keys) -> str:
    """Returns ``("a", "b", 0)`` as ``a.b[0]``."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")
