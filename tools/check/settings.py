"""What a start refuses, as far as it shows in the settings alone, without data and model."""

from __future__ import annotations

from pathlib import Path

from engine.config.sections import RunConfig
from engine.distributed.ranks import Layout, choose_device
from engine.files import check_writable
from engine.model.wrap import check_sync_batchnorm
from tools.check.checked import Checked, refusals


def check_settings(config: RunConfig) -> Checked:
    """Asks the checks that training makes. What another machine may have, such as a GPU, is a warning."""
    errors = refusals(
        lambda: check_writable(config.experiment.root),
        lambda: _check_weights(config),
    )
    wanted = config.distributed
    lacking = refusals(lambda: check_sync_batchnorm(wanted, choose_device(wanted, Layout())))
    return Checked(warnings=[f"on this machine: {line}" for line in lacking], errors=errors)


def _check_weights(config: RunConfig) -> None:
    if isinstance(config.finetune.weights, Path):
        from engine.model.pretrained import weights_file

        weights_file(config.finetune.weights)
