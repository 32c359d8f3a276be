"""From the `diffusion` section to a process."""

from __future__ import annotations

from typing import Any, Protocol

from diffusion.process.objectives import Name, Objective
from diffusion.process.process import Process
from diffusion.process.schedules import Schedule, size_shift
from diffusion.process.sections import ScheduleConfig, TimesConfig, WeightingConfig
from diffusion.process.times import Times
from engine.errors import UserError


class ProcessConfig(Protocol):
    """What of the section a process is built from."""

    @property
    def objective(self) -> Name: ...
    @property
    def sigma_data(self) -> float: ...
    @property
    def schedule(self) -> ScheduleConfig: ...
    @property
    def weighting(self) -> WeightingConfig: ...
    @property
    def times(self) -> TimesConfig: ...


def build_process(config: ProcessConfig, size: tuple[int, int]) -> Process:
    """Builds the process for images of ``size``, (height, width).

    Raises:
        UserError: parts contradict each other, which may show only where a schedule's table is computed.
    """
    schedule: dict[str, Any] = config.schedule.model_dump()
    if schedule["shift"] == "size":
        schedule["shift"] = size_shift(size)
    weighting: dict[str, Any] = config.weighting.model_dump()
    bound = {"gamma": weighting["gamma"]} if "gamma" in weighting else {}
    try:
        return Process(
            Schedule(**schedule),
            Objective(config.objective, config.sigma_data),
            weighting["name"],
            Times(**config.times.model_dump(exclude={"stratified"})),
            **bound,
        )
    except ValueError as error:
        raise UserError(f"diffusion: {error}") from None
