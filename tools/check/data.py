"""The data of a run: how much there is, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from engine.errors import UserError
from engine.settings import RunConfig

NAMED = 1000
"""Ids that are named of each kind of fault."""


@dataclass(frozen=True)
class Checked:
    """What a check has found."""

    lines: list[str]
    """What is there."""
    warnings: list[str] = field(default_factory=list)
    """What is wrong and can be done without."""
    errors: list[str] = field(default_factory=list)
    """What training would refuse, or end at."""


def check_data(task: str, config: RunConfig) -> Checked:
    """Opens the data that ``config`` names. What is not there at all is an error among the others."""
    try:
        return _CHECKS[task](config)
    except UserError as error:
        return Checked([], errors=str(error).splitlines())


def _classification(config: Any) -> Checked:
    from classification.datasets import open_pictures
    from classification.first_look import faults_of

    opened = {split: open_pictures(config.data, split) for split in ("train", "val")}
    return Checked(
        [f"{split}: {len(pictures)} pictures of {len(pictures.classes)} classes" for split, pictures in opened.items()],
        errors=faults_of(config.data, opened["train"], opened["val"], open_train=True).splitlines(),
    )


def _detection(config: Any) -> Checked:
    from detection.datasets import check_data

    lines, findings = check_data(config.data, config.augmentation.min_box_pixels)
    return Checked(
        lines,
        warnings=[finding.told(NAMED) for finding in findings if not finding.fatal],
        errors=[finding.told(NAMED) for finding in findings if finding.fatal],
    )


_CHECKS: dict[str, Callable[[Any], Checked]] = {"classification": _classification, "detection": _detection}
