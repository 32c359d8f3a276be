"""Sections of a configuration: frozen pydantic models, unions of them, and keys that depend on others.

Every field carries its type, its default and a docstring under it, which also stands in the JSON Schema and in
``--help``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Annotated, Any, NamedTuple, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationInfo, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from engine.config.type_words import one_of
from engine.text import shortened


def _in_order(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"the smaller number comes first, not {list(bounds)}")
    return bounds


def _at_most(most: int) -> AfterValidator:
    """A bound that no help needs to tell of."""

    def check(value: int) -> int:
        if abs(value) > most:
            raise ValueError(f"{shortened(str(value), 30)} is more than any run takes; at most {most}")
        return value

    return AfterValidator(check)


Plausible = _at_most(10**9)
"""Of counts: far from where arithmetic ends."""
Bits64 = _at_most(2**63 - 1)
Count = Annotated[int, Field(ge=1), Plausible]
CountOrNone = Annotated[int, Field(ge=0), Plausible]
Seed = Annotated[int, Field(ge=0), Bits64]
Few = Annotated[int, Field(ge=1, le=1000)]
"""Of what is done, or built, for each of something."""
Size = Annotated[int, Field(ge=1, le=16_384)]
"""Pixels or patches of a side, or channels, with whose square memory grows."""
Batch = Annotated[int, Field(ge=1, le=10**6)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
PartOfOne = Annotated[float, Field(gt=0, le=1)]
PositiveRange = Annotated[tuple[Positive, Positive], AfterValidator(_in_order)]
NonNegativeRange = Annotated[tuple[NonNegative, NonNegative], AfterValidator(_in_order)]
PartRange = Annotated[tuple[PartOfOne, PartOfOne], AfterValidator(_in_order)]


class Unused(NamedTuple):
    """Keys that have no effect, dotted, from the section that was checked on; and the keys that decide so."""

    keys: tuple[str, ...]
    text: str
    """What is said where the first of them was written."""
    deciders: tuple[str, ...]


class UnusedKeys(ValueError):
    """Settings that nothing reads because others say otherwise; pydantic's validators may raise it.

    They are refused where they stand in the same file as a decider of theirs, or in one that is read over it; all of
    the command line counts as one file. What a ``base`` says is another matter: a file over it, or the command line,
    may well turn off what the base's keys belong to. Such keys are left out silently.
    """

    def __init__(self, found: Sequence[Unused]) -> None:
        super().__init__("; ".join(f"{keys.keys[0]}: {keys.text}" for keys in found))
        self.found = tuple(found)


@dataclass(frozen=True)
class OnlyWith:
    """In a field's annotation: it has an effect only where one of some keys of its section is set.

    A key counts as set when its value is not its default, so that a resolved configuration, with all defaults written
    out, reads back.
    """

    any_of: tuple[str, ...]
    values: tuple[object, ...] = ()
    """Values that the key is to have; empty: any but null, false, 0 and nothing."""

    def holds(self, section: Section) -> bool:
        """Tells whether the field has an effect."""
        found = [getattr(section, key) for key in self.any_of]
        return any(value in self.values if self.values else bool(value) for value in found)

    def __str__(self) -> str:
        keys = " or ".join(self.any_of)
        return f"{keys}: {one_of(list(map(str, self.values)))}" if self.values else keys


class Section(BaseModel):
    """One section of a configuration: unknown keys and wrong types are errors, values never change afterwards.

    Nothing is converted: ``true`` is no number and ``"3"`` no integer; but an integer may stand for a float, and in a
    file a list for a tuple. NaN and infinities are refused unless the field says ``Field(allow_inf_nan=True)``.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
        ser_json_inf_nan="constants",
        protected_namespaces=(),
    )

    @model_validator(mode="after")
    def _refuse_unused_keys(self) -> Section:
        refuse_unused(
            self,
            (
                (name, str(needed), needed.any_of)
                for name, field in type(self).model_fields.items()
                for needed in field.metadata
                if isinstance(needed, OnlyWith) and not needed.holds(self)
            ),
        )
        return self

    @classmethod
    def _one_of(cls, values: object, keys: Sequence[str], default: object) -> object:
        """Checks that of ``keys``, which say the same thing, one is given; if none is, the first has its default."""
        if not isinstance(values, dict):
            return values
        given = [key for key in keys if values.get(key) is not None]
        if len(given) > 1:
            text = f"give {' or '.join(f'`{key}`' for key in keys)}, not both"
            raise UnusedKeys([Unused(tuple(given), text, tuple(given))])
        return values if given else {**values, keys[0]: default}


def refuse_unused(section: BaseModel, unread: Iterable[tuple[str, str, Sequence[str]]]) -> None:
    """Checks that keys which nothing reads are not set.

    Args:
        section: What all keys start from.
        unread: Dotted key, what it needs to have an effect, and the dotted keys that decide whether that is so.

    Raises:
        UnusedKeys: some are set; pydantic's validators may raise it.
    """
    found: list[Unused] = []
    for path, needed, deciders in unread:
        *outer, name = path.split(".")
        owner = reduce(getattr, outer, section)
        default = type(owner).model_fields[name].get_default()
        if getattr(owner, name) != default:
            written = default if isinstance(default, str) else json.dumps(default)
            text = f"has an effect only with {needed}; remove it, or write its default, {written}"
            found.append(Unused((path,), text, tuple(deciders)))
    if found:
        raise UnusedKeys(found)


@dataclass(frozen=True)
class Variants:
    """Makes a union of sections one section, whose keys depend on one: ``Annotated[A | B, Variants("name")]``.

    Each member's field of that name says which values are its own, by a ``Literal``; one member may take any other
    text. Where the key is not given, the first member's default counts.
    """

    key: str
    members: tuple[type[Section], ...] = ()
    """Filled in by :func:`variants_of`."""

    def names(self, member: type[Section]) -> tuple[str, ...]:
        """Returns the values of a member; of one that takes any text, the examples that its field gives."""
        field = member.model_fields[self.key]
        return get_args(field.annotation) or tuple(map(str, field.examples or ()))

    def having(self, name: str) -> list[str]:
        """Returns the values of all members that have a field of this name."""
        return [value for member in self.members if name in member.model_fields for value in self.names(member)]

    def tag(self, value: Any) -> str | None:
        """Returns the name of the class that is to validate a section's ``value``; None if its key is missing."""
        if isinstance(value, Section):
            return type(value).__name__
        first = self.members[0]
        if not isinstance(value, dict):
            return first.__name__  # which says that it has to be a section
        if self.key not in value:
            return None if first.model_fields[self.key].is_required() else first.__name__
        name = value[self.key]
        of_any_text = (m for m in self.members if get_origin(m.model_fields[self.key].annotation) is None)
        named = (member for member in self.members if name in self.names(member))
        found = next(named, next(of_any_text, None) if isinstance(name, str) else None)
        return found.__name__ if found is not None else repr(name)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        members = get_args(source)
        choices = {member.__name__: handler.generate_schema(member) for member in members}
        return core_schema.tagged_union_schema(choices, Variants(self.key, members).tag)


def variants_of(field: FieldInfo) -> Variants | None:
    """Returns what tells the variants of a section apart, if there are any."""
    for found in field.metadata:
        if isinstance(found, Variants):
            return Variants(found.key, get_args(field.annotation))
    return None


IMPORT_NOTHING = "import nothing"
TRAINED = "trained"
"""What the context of a validation may say."""


def may_import(info: ValidationInfo) -> bool:
    """Tells whether a check may import what takes seconds; if not, it is to accept what it cannot know without."""
    return IMPORT_NOTHING not in (info.context or ())


def of_trained_model(info: ValidationInfo) -> bool:
    """Tells whether the configuration is that of a trained model in use, which needs nothing to begin training with."""
    return TRAINED in (info.context or ())
