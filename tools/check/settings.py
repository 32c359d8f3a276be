"""What a start refuses, as far as it shows in the settings alone, without data and model."""

from __future__ import annotations

from pathlib import Path

from engine.config.run import RunConfig
from engine.distributed.connect import choose_device
from engine.distributed.layout import Layout
from engine.files import check_writable
from engine.model.wrap import check_sync_batchnorm
from engine.task.preflight import Checked, refusals
from engine.task.spec import TaskSpec


def check_settings(spec: TaskSpec, config: RunConfig) -> Checked:
    """Asks the checks that training makes. What another machine may have, such as a GPU, is a warning."""
    errors = refusals(
        lambda: check_writable(config.experiment.root),
        lambda: _check_weights(config),
        lambda: spec.metrics(config).deciding(config.evaluation),
    )
    wanted = config.distributed
    lacking = refusals(lambda: check_sync_batchnorm(wanted, choose_device(wanted, Layout())))
    return Checked(warnings=[f"on this machine: {line}" for line in lacking], errors=errors)


def _check_weights(config: RunConfig) -> None:
    if isinstance(config.finetune.weights, Path):
        from engine.model.pretrained import weights_file

        weights_file(config.finetune.weights)
