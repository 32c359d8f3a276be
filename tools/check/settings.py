"""What a start refuses, as far as it shows in the settings alone, without data and model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.checkpoints.disk_space import check_writable
from engine.config.sections import RunConfig
from engine.distributed.connect import choose_device
from engine.distributed.layout import Layout
from engine.model.wrap import check_sync_batchnorm
from engine.training.evaluation import check_metric
from tools.check.checked import Checked, refusals


def check_settings(task: str, config: RunConfig) -> Checked:
    """Asks the checks that training makes. What another machine may have, such as a GPU, is a warning."""
    errors = refusals(
        lambda: check_writable(config.experiment.root),
        lambda: _check_weights(config),
        lambda: _CHECKS[task](config),
    )
    wanted = config.distributed
    lacking = refusals(lambda: check_sync_batchnorm(wanted, choose_device(wanted, Layout())))
    if wanted.device == "cpu":
        return Checked(errors=errors + lacking)
    return Checked(warnings=[f"on this machine: {line}" for line in lacking], errors=errors)


def _check_weights(config: RunConfig) -> None:
    if isinstance(config.finetune.weights, Path):
        from engine.model.pretrained import weights_file

        weights_file(config.finetune.weights)


def _classification(config: Any) -> None:
    from classification.metrics.measure import default_metric, metric_names

    several = config.data.multi_label
    names = metric_names(several, config.evaluation.thresholds)
    check_metric(config.evaluation, names, default_metric(several))


def _detection(config: Any) -> None:
    from detection.task import DetectionTask, check_start

    check_start(config)
    check_metric(config.evaluation, DetectionTask.metric_names, DetectionTask.metric)


_CHECKS = {"classification": _classification, "detection": _detection}
