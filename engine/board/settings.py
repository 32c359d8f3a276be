"""Settings that tell a run from others: those that were given, and those in which runs commonly differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from engine.config.load import is_below, leaves
from engine.config.run import FREE, RunConfig
from engine.config.section import Section

COMMON = (
    "model.name",
    "data.source",
    "data.root",
    "data.csv",
    "data.val_fraction",
    "data.image_size",
    "finetune.weights",
    "optimizer.name",
    "optimizer.lr",
    "optimizer.weight_decay",
    "schedule.name",
    "training.epochs",
    "training.steps",
    "training.global_batch_size",
    "training.precision",
    "experiment.seed",
)
PARTS_OF_MODELS = ("backbone", "neck")
"""Settings of a task's own section that say what is trained."""

Plain = Mapping[str, Any]
"""A configuration as plain values."""


def common_settings(config: Plain) -> dict[str, Any]:
    """Returns, by their dotted keys, the settings in which runs commonly differ; without those that are null."""
    parts = [f"{section}.{part}" for section in config for part in PARTS_OF_MODELS]
    found = {}
    for key in (*parts, *COMMON):
        section, _, name = key.partition(".")
        content = config.get(section)
        if isinstance(content, Mapping) and content.get(name) is not None:
            found[key] = content[name]
    return found


def telling_settings(config: RunConfig) -> dict[str, bool | float | str]:
    """Returns the settings that TensorBoard's table of hyperparameters is to show of a run.

    Those in which runs commonly differ, those that are not at their defaults, and, in a sweep, those that are swept,
    whose ``key=value`` are tags of the run. Settings that cannot change a result are left out, and null ones.
    """
    plain = config.model_dump(mode="json")
    values = leaves(plain)
    swept = [tag.partition("=")[0] for tag in config.experiment.tags]
    given = [key for key in _changed(config, None) if not is_below(key, FREE)]
    shown = {key: values[key] for key in (*given, *swept) if values.get(key) is not None}
    return {key: _shown(value) for key, value in {**common_settings(plain), **shown}.items()}


def _changed(section: Section, default: Section | None, prefix: str = "") -> Iterator[str]:
    """Yields the dotted keys of values that are not those of ``default``, else of the section's own type."""
    for name, field in type(section).model_fields.items():
        value, key = getattr(section, name), f"{prefix}{name}"
        usual = getattr(default, name) if default is not None else field.get_default(call_default_factory=True)
        if isinstance(value, Section):
            same_kind = usual if type(usual) is type(value) else None
            yield from _changed(value, same_kind, f"{key}.")
            if usual is None and not field.is_required():  # was turned on
                yield from (f"{key}.{inner}" for inner in leaves(value))
        elif field.is_required() or value != usual:
            yield key


def _shown(value: Any) -> bool | float | str:
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)
