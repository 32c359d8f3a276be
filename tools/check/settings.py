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


def check_settings(spec: TaskSpec, config: RunConfig, login_node: bool) -> Checked:
    """Asks the checks that training makes. What a ``login_node`` lacks, such as a GPU, is a warning, else an error."""
    errors = refusals(
        lambda: check_writable(config.experiment.root),
        lambda: _check_weights(config),
        lambda: spec.metrics(config).deciding(config.evaluation),
    )
    wanted = config.distributed
    lacking = refusals(lambda: check_sync_batchnorm(wanted, choose_device(wanted, Layout())))
    if login_node:
        return Checked(warnings=[f"on this machine: {line}" for line in lacking], errors=errors)
    return Checked(
        errors=[*errors, *(f"{line}; --login-node if the run will be on another machine" for line in lacking)]
    )


def _check_weights(config: RunConfig) -> None:
    if isinstance(config.finetune.weights, Path):
        from engine.model.pretrained import weights_file

        weights_file(config.finetune.weights)
