"""The data of a run: how much there is, what is wrong with it, and whether it fills a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.config.run import RunConfig
from engine.data.batch_plan import BatchLayout
from engine.errors import UserError
from tools.check.checked import Checked, refusals

NAMED = 1000
"""Ids that are named of each kind of fault."""


def check_data(task: str, config: RunConfig) -> Checked:
    """Opens the data that ``config`` names. What is not there at all is an error among the others."""
    try:
        return _CHECKS[task](config)
    except UserError as error:
        return Checked(errors=str(error).splitlines())


def _classification(config: Any) -> Checked:
    from classification.metrics.measure import check_top5
    from engine.datasets.dataset import open_pictures
    from engine.datasets.file_check import faults_of
    from engine.datasets.sampling import build_order

    opened = {split: open_pictures(config.data, split) for split in ("train", "val")}
    train = opened["train"]
    samples = build_order(config.data, train, config.experiment.seed).num_samples
    return Checked(
        [f"{split}: {len(pictures)} pictures of {len(pictures.classes)} classes" for split, pictures in opened.items()],
        errors=[
            *faults_of(config.data, train, opened["val"], open_train=True).splitlines(),
            *refusals(lambda: check_top5(config.evaluation.metric, len(train.classes)), lambda: _fill(config, samples)),
        ],
    )


def _detection(config: Any) -> Checked:
    from detection.data.open import check_data, described

    opened, findings = check_data(config.data, config.augmentation.min_box_pixels)
    errors = [finding.told(NAMED) for finding in findings if finding.fatal]
    return Checked(
        [described(split, pictures) for split, pictures in opened.items()],
        warnings=[finding.told(NAMED) for finding in findings if not finding.fatal],
        errors=errors or refusals(lambda: _fill(config, len(opened["train"]))),  # faulty pictures are not counted
    )


def _fill(config: Any, samples: int) -> None:
    """Raises a UserError if an epoch of ``samples`` has not one batch."""
    BatchLayout(samples, config.training.global_batch_size, drop_last=config.data.drop_last)


_CHECKS: dict[str, Callable[[Any], Checked]] = {"classification": _classification, "detection": _detection}
