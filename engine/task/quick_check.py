"""What can be known of a run's settings without building anything, wherever it is submitted."""

from __future__ import annotations

from engine.config.run import RunConfig
from engine.files import check_writable
from engine.task.preflight import refusals
from engine.task.spec import TaskSpec


def check_settings(spec: TaskSpec, config: RunConfig) -> list[str]:
    """Returns what the quick checks refuse that training makes: of the place of experiments, weights and metrics."""

    def check_weights() -> None:
        if config.finetune.weights is not None and config.finetune.weights != "timm":
            from engine.model.pretrained import weights_file

            weights_file(config.finetune.weights)

    return refusals(
        lambda: check_writable(config.experiment.root),
        check_weights,
        lambda: spec.metrics(config).deciding(config),
    )
