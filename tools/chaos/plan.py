"""When a run is killed, and which of its processes: drawn before it starts, from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import ceil

from engine.errors import UserError

VICTIMS = ("launcher", "rank", "worker", "all")
"""The launcher alone; one rank; one process that reads data for a rank; every process of the start at once."""

MOMENTS = {"step": 6, "save": 2, "start": 2}
"""Within a step; while a checkpoint is written; before the first step of a start. With how often each is drawn."""

REPEATED = 0.2
"""Part of the kills that strike at the same step as the one before."""

SECONDS_OF_DYING = 1.5
"""How long ranks may go on with their steps before they notice that their launcher or a worker is gone."""


@dataclass(frozen=True)
class Kill:
    """One kill as it is planned."""

    moment: str
    """One of :data:`MOMENTS`."""
    victim: str
    """One of :data:`VICTIMS`."""
    step: int
    """Strikes once this step has begun (``save``: at the first checkpoint from then on); no matter for ``start``."""
    latest: int
    """``save``: strikes once this step has begun if no checkpoint has been till then."""
    delay: float
    """Place within the step, the checkpoint's writing or the start, in [0, 1)."""
    pick: float
    """Which rank and worker, in [0, 1)."""


def plan_kills(count: int, total_steps: int, seconds_per_step: float, seed: int) -> list[Kill]:
    """Plans ``count`` kills spread over ``total_steps`` but for the end, which a start may reach while it dies.

    Each four kills in a row have the four kinds of victims.

    Raises:
        UserError: the run has too few steps.
    """
    reserve = max(10, ceil(SECONDS_OF_DYING / seconds_per_step))
    last = total_steps - reserve
    if count > last:
        raise UserError(
            f"--kills: {count} kills need a run of {count + reserve} steps or more, but this one has {total_steps}; "
            "ask for fewer, or for a longer run with training.epochs=N or training.steps=N"
        )
    rng = random.Random(seed)
    victims = [victim for _ in range(0, count, len(VICTIMS)) for victim in rng.sample(VICTIMS, len(VICTIMS))]
    moments = rng.choices(list(MOMENTS), list(MOMENTS.values()), k=count)
    delays, picks, repeats = ([rng.random() for _ in range(count)] for _ in range(3))
    steps = sorted(rng.sample(range(1, last + 1), count))
    for place in range(1, count):
        if repeats[place] < REPEATED:
            steps[place] = steps[place - 1]
    return [
        Kill(moment, victim, step, min(step + 25, last), delay, pick)
        for moment, victim, step, delay, pick in zip(moments, victims, steps, delays, picks, strict=False)
    ]
