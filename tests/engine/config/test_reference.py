"""What ``--help`` says of keys, and that it says something of every one."""

from __future__ import annotations

import pytest

from classification.config import ClassificationConfig
from detection.config import DetectionConfig
from engine.config.reference import describe, overview
from engine.config.section import Section
from engine.config.type_words import key_paths
from engine.errors import UserError


@pytest.mark.parametrize("schema", [ClassificationConfig, DetectionConfig])
def test_every_section_and_key_is_listed_and_explained(schema: type[Section]) -> None:
    listed = overview(schema)
    for keys, field in key_paths(schema):
        assert keys[-1] in listed or len(keys) > 2, keys
        assert (field.description or "").split()[0] in describe(schema, ".".join(keys))


def test_a_section_is_told_with_types_defaults_and_what_its_keys_depend_on() -> None:
    text = describe(ClassificationConfig, "schedule")
    shared, cosine, milestones, *_ = text.split("schedule.name: ")
    assert "warmup_epochs" not in shared  # one_cycle has none
    assert cosine.startswith("cosine (default): ")
    assert "schedule.warmup_lr: a number >= 0 (default 1e-06, only with warmup_epochs or warmup_steps)" in cosine
    assert "schedule.min_lr" in cosine and "schedule.min_lr" not in milestones
    assert "schedule.milestones: a list of at least 1 value (required)" in milestones
    assert "schedule.plateau: a section of keys (see --help schedule.plateau)" in text
    assert "training.ema.decay: a number > 0 and < 1 (default 0.9998)" in describe(ClassificationConfig, "training.ema")
    assert "training.accumulation: a whole number >= 1 or auto (default auto)" in describe(DetectionConfig, "training")
    assert "data.root: a path (required)" in describe(DetectionConfig, "data.root")


@pytest.mark.parametrize(
    ("path", "hint"),
    [("optimzer", "'optimizer'"), ("lr", "'optimizer.lr'"), ("training.emma", "'training.ema'"), ("?", "there are ex")],
)
def test_what_there_is_not_is_refused_with_the_nearest(path: str, hint: str) -> None:
    with pytest.raises(UserError, match=hint):
        describe(ClassificationConfig, path)
