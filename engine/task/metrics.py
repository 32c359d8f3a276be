"""The metrics of a task, each with the direction in which it gets better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from engine.config.run import RunConfig
from engine.errors import UserError
from engine.task.preflight import refusals

Direction = Literal["max", "min"]
"""Whether more or less of a metric is better."""
SECOND = "_second_ema"
"""End of the name of what is measured of a second moving average (`training.ema.second_decay`)."""


@dataclass(frozen=True)
class Metrics:
    """What an evaluation measures, and what decides which checkpoint is best."""

    directions: Mapping[str, Direction | None]
    """By name; None where a user has to say it, as `evaluation.mode`."""
    default: str
    """The metric that decides unless `evaluation.metric` names another."""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """What other settings would have measured, each with these settings."""

    def recorded(self, config: RunConfig) -> Mapping[str, Direction | None]:
        """Returns all that a run records of an evaluation: of a second moving average too, if it has one."""
        if config.training.ema is None or config.training.ema.second_decay is None:
            return self.directions
        return {**self.directions, **{f"{name}{SECOND}": way for name, way in self.directions.items()}}

    def fault(self, config: RunConfig) -> str:
        """Returns what is wrong with the metric that decides; empty if nothing is."""
        return "".join(refusals(lambda: self.deciding(config)))

    def deciding(self, config: RunConfig) -> tuple[str, Direction]:
        """Returns the metric that decides, and its direction.

        Raises:
            UserError: it is not measured, or its direction is not known, or is the other one.
        """
        name, mode, known = config.evaluation.metric or self.default, config.evaluation.mode, self.recorded(config)
        if name not in known:
            first = name.removesuffix(SECOND)
            wanted = [self.elsewhere[first]] if first in self.elsewhere else []
            if first != name and first in (*self.directions, *self.elsewhere) and known is self.directions:
                wanted.append("training.ema.second_decay")
            cure = f" without {' and '.join(wanted)}" if wanted else ""
            raise UserError(f"evaluation.metric: '{name}' is not measured{cure}; there are {', '.join(known)}")
        direction = known[name] or mode
        if direction is None:
            raise UserError(f"evaluation.mode: say whether more (max) or less (min) of '{name}' is better")
        if mode not in (None, direction):
            better = "more" if direction == "max" else "less"
            text = f"{mode} is wrong for '{name}', of which {better} is better; remove it"
            raise UserError(f"evaluation.mode: {text}")
        return name, direction
