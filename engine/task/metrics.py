"""The metrics of a task, each with the direction in which it gets better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from engine.config.training import EvaluationConfig
from engine.errors import UserError
from engine.task.preflight import refusals

Direction = Literal["max", "min"]
"""Whether more or less of a metric is better."""


@dataclass(frozen=True)
class Metrics:
    """What an evaluation measures, and what decides which checkpoint is best."""

    directions: Mapping[str, Direction | None]
    """By name; None where a user has to say it, as `evaluation.mode`."""
    default: str
    """The metric that decides unless `evaluation.metric` names another."""

    def fault(self, config: EvaluationConfig) -> str:
        """Returns what is wrong with the metric that decides; empty if nothing is."""
        return "".join(refusals(lambda: self.deciding(config)))

    def deciding(self, config: EvaluationConfig) -> tuple[str, Direction]:
        """Returns the metric that decides, and its direction.

        Raises:
            UserError: it is not measured, or its direction is not known, or is the other one.
        """
        name = config.metric or self.default
        if name not in self.directions:
            raise UserError(f"evaluation.metric: '{name}' is not measured; there are {', '.join(self.directions)}")
        direction = self.directions[name] or config.mode
        if direction is None:
            raise UserError(f"evaluation.mode: say whether more (max) or less (min) of '{name}' is better")
        if config.mode not in (None, direction):
            better = "more" if direction == "max" else "less"
            text = f"{config.mode} is wrong for '{name}', of which {better} is better; remove it"
            raise UserError(f"evaluation.mode: {text}")
        return name, direction
