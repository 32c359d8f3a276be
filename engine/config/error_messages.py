"""Pydantic's findings in the words of a configuration's author: file, line, key, what is wrong, what would be right."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from engine.config.section import Section, Unused, UnusedKeys, Variants, variants_of
from engine.config.type_words import is_section, key_paths, members, one_of, words
from engine.config.yaml_reader import REPLACE_TAG, Node, Place, kind_of

Keys = tuple[str | int, ...]

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
    any; ``expected`` is what the key takes, in words.
    """

    keys: Keys
    owner: type[BaseModel] | None
    variants: Variants | None
    expected: list[str]
    error: Any

    @property
    def is_own_text(self) -> bool:
        """Tells whether a check of ours says what is wrong."""
        return self.error["type"] in ("value_error", "assertion_error")

    @property
    def decider(self) -> Keys:
        """Returns the key that tells the variants apart, if this one belongs to another variant; else none."""
        if self.variants is None or self.error["type"] != "extra_forbidden":
            return ()
        return (*self.keys[:-1], self.variants.key) if self.variants.having(str(self.keys[-1])) else ()

    @property
    def unused(self) -> tuple[Unused, ...]:
        """Settings that a check has found to be without effect."""
        error = self.error.get("ctx", {}).get("error")
        return error.found if isinstance(error, UnusedKeys) else ()


def explain(error: ValidationError, schema: type[Section], tree: Node) -> list[str]:
    """Returns one line for each thing that is wrong in ``tree``, in the order of the files' lines."""
    findings = trace(error, schema, tree)
    around = {finding.keys[:depth] for finding in findings for depth in range(len(finding.keys))}
    told = {finding.keys for finding in findings if finding.is_own_text}
    problems: list[tuple[Place, Keys, str]] = []
    for finding in findings:
        # Each member of a union has an error of its own: what is wrong within a value, or found by a check, says most.
        if finding.keys not in around and (finding.is_own_text or finding.keys not in told):
            problems += _describe(finding, schema, tree)
    wrong = {keys for _, keys, _ in problems}
    for finding in findings:
        if finding.decider and finding.decider not in wrong:
            text = _of_another_variant(finding, tree)
            problems += [(tree.place_of(leaf), leaf, text) for leaf, _ in tree.leaves(finding.keys)]
    placed = sorted(dict.fromkeys(problems), key=lambda problem: problem[0])
    return [": ".join(part for part in (str(place), dotted(keys), text) if part) for place, keys, text in placed]


def left_out(error: ValidationError, schema: type[Section], tree: Node) -> list[Keys]:
    """Returns the keys of ``tree`` without effect that were written below all that decides so, which are inherited."""
    found: list[Keys] = []
    for finding in trace(error, schema, tree):
        if finding.decider:
            leaves = [leaf for leaf, _ in tree.leaves(finding.keys)]
            below = [leaf for leaf in leaves if _is_below(tree, leaf, [finding.decider])]
            found += [finding.keys] if below == leaves else below
        for unused in finding.unused:
            deciders = [(*finding.keys, *key.split(".")) for key in unused.deciders]
            keys = [(*finding.keys, *key.split(".")) for key in unused.keys]
            found += [path for path in keys if _is_below(tree, path, deciders)]
    return found


def _is_below(tree: Node, keys: Keys, deciders: list[Keys]) -> bool:
    layers = [layer for layer in map(tree.layer_of, deciders) if layer is not None]
    written = tree.layer_of(keys)
    return bool(layers) and written is not None and written < max(layers)


def trace(error: ValidationError, schema: type[BaseModel], tree: Node) -> list[Finding]:
    """Returns where in ``tree`` pydantic's errors are, and what would be right there."""
    value = tree.plain()
    return [_trace(found, schema, value) for found in error.errors(include_url=False)]


def _trace(error: Any, schema: type[BaseModel], value: Any) -> Finding:
    """Follows pydantic's location through ``value``: it mixes keys with names of union members, which are no keys."""
    annotation: Any = schema
    metadata: tuple[Any, ...] = ()  # of this annotation, as the variants are
    variants: Variants | None = None
    owner: type[BaseModel] | None = None
    owned_by: Variants | None = None
    keys: Keys = ()
    holder: Any = None
    for part in error["loc"]:
        choices = members(annotation)
        is_item = part in value if isinstance(value, dict) else isinstance(value, list) and part in range(len(value))
        if part == "[key]":  # the key itself of a mapping, not its value
            annotation, metadata = get_args(holder)[0], ()
        elif not is_item and (error["type"] != "missing" or part != error["loc"][-1] or isinstance(part, int)):
            variant = [member for member in choices if is_section(member) and member.__name__ == part]
            annotation = variant[0] if variant else annotation
        else:
            keys = (*keys, part)
            value = value[part] if is_item else None
            holds = [member for member in choices if is_section(member) or get_origin(member) in (dict, list, tuple)]
            holder = holds[0] if holds else Any
            owner, owned_by = (holder, variants) if is_section(holder) else (None, None)
            annotation, metadata, variants = _inside(holder, part)
    told_apart_by = variants if error["type"].startswith("union_tag") else owned_by
    expected = [text for text in words(annotation, metadata) if text != "null"]
    return Finding(keys, owner, told_apart_by, expected, error)


def _inside(holder: Any, part: str | int) -> tuple[Any, tuple[Any, ...], Variants | None]:
    """Returns the type of what a section, mapping or list holds under a key, what stands beside it, and variants."""
    if is_section(holder):
        field = holder.model_fields.get(part)
        return (Any, (), None) if field is None else (field.annotation, tuple(field.metadata), variants_of(field))
    inner = [arg for arg in get_args(holder) if arg is not Ellipsis] or [Any]
    return inner[min(part, len(inner) - 1) if isinstance(part, int) else -1], (), None


def _describe(finding: Finding, schema: type[BaseModel], tree: Node) -> list[tuple[Place, Keys, str]]:
    """Returns the places and keys to name and what to say of each."""
    error, kind, keys = finding.error, finding.error["type"], finding.keys
    place = tree.place_of(keys)
    if kind == "extra_forbidden":
        return [] if finding.decider else [(place, keys, _unknown_key(finding, schema, tree))]
    if finding.unused:
        unused = [((*keys, *each.keys[0].split(".")), each.text) for each in finding.unused]
        return [(tree.place_of(first), first, text) for first, text in unused]
    if kind == "missing" and not isinstance(error["input"], list):
        decider = (*keys[:-1], finding.variants.key) if finding.variants is not None else ()
        chosen = tree.place_of(decider)
        if decider and chosen.layer > place.layer:  # what was there before does without
            return [(chosen, keys, f"required but missing ({dotted(decider)}: {tree.value_of(decider)})")]
        return [(place, keys, "required but missing")]
    if kind.startswith("union_tag"):
        assert finding.variants is not None, "only variants have tags"
        keys = (*keys, finding.variants.key)
        place = tree.place_of(keys)
        if kind == "union_tag_not_found":
            return [(place, keys, "required but missing")]
        names = [repr(name) for member in finding.variants.members for name in finding.variants.names(member)]
        return [(place, keys, _must_be(names, tree.value_of(keys)))]
    if finding.is_own_text:
        return [_of_a_check(keys, str(error["ctx"]["error"]), schema, tree)]
    return [(place, keys, _must_be(finding.expected, error["input"]))]


def _must_be(right: list[str], value: Any) -> str:
    """Returns what to say of a value that is none of the ``right`` ones."""
    expected = one_of(right)
    if not isinstance(value, str):
        expected = re.sub(r"\btext\b", "text (in quotes if it looks like something else)", expected)
    if isinstance(value, float) and not math.isfinite(value):
        expected = expected.replace("a number", "a finite number")
    length = f"of {len(value)}" if isinstance(value, list) and value and "a list of" in expected else ""
    choices = [text.strip("'") for text in right if "'" in text]
    meant = _meant(value, choices) if isinstance(value, str) else None
    hint = f"; did you mean '{meant}'?" if meant else ""
    return f"must be {expected}, not {length or kind_of(value)}{hint}"


def _meant(value: str, choices: list[str]) -> str | None:
    """Returns the choice that the author of ``value`` meant, if any is alike: not one of another number of bits."""
    if value.lower() == "gpu" and "cuda" in choices:
        return "cuda"
    close = difflib.get_close_matches(value, choices, n=1)
    if not close:
        return None
    (letters, number), (meant, other) = ((re.sub(r"\d", "", text), re.sub(r"\D", "", text)) for text in (value, *close))
    return None if letters == meant and other and sorted(number) != sorted(other) else close[0]


def _of_a_check(keys: Keys, text: str, schema: type[BaseModel], tree: Node) -> tuple[Place, Keys, str]:
    """Returns where a check over several keys of a section goes wrong, and what to say there.

    It may begin with the key it is about: ``optimizer.lr: ...``, ``optimizer.lr is ...``. But whoever has written one
    of the others over it, in a later file or on the command line, has made the mistake there.
    """
    known = {known for known, _ in key_paths(schema)}

    def key_of(word: str, *sections: Keys) -> Keys | None:
        candidates = ((*section, *word.split(".")) for section in (*sections, ()))
        return next((key for key in candidates if key in known and (keys or len(key) > 1)), None)

    first = re.match(r"([A-Za-z_]\w*(?:\.\w+)*): |([A-Za-z_]\w*(?:\.\w+)+) ", text)
    named = key_of(first[1] or first[2], keys) if first is not None else None
    about = named or keys
    names = re.findall(r"[A-Za-z_]\w*(?:\.\w+)*", text)
    others = [key for name in names if (key := key_of(name, about, keys)) is not None]
    parts = [key for key in others if not any(other != key and other[: len(key)] == key for other in others)]
    layers = {key: layer for key in parts if (layer := tree.layer_of(key)) is not None}
    last = max(layers, key=lambda key: layers[key], default=about)
    if layers and layers[last] > layers.get(about, tree.place_of(about).layer):
        return tree.way(last)[-1].place._replace(layer=layers[last]), last, text
    return tree.place_of(about), about, text[first.end() :] if named is not None and first is not None else text


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
