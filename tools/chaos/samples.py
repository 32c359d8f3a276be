"""Checks of the diaries of all starts: every sample once an epoch, and the same samples in repeated steps."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from engine.data.batch_plan import Draw
from tools.chaos.diary import Epoch, Fed

Place = tuple[int, int, int]
"""Step, micro-step and rank."""


def last_fed(starts: Iterable[Iterable[Fed]]) -> dict[Place, Fed]:
    """Returns what each place was fed the last time, which is the time that counts."""
    return {fed.place: fed for start in starts for fed in start}


def repeat_fault(starts: Iterable[Iterable[Fed]]) -> str | None:
    """Returns None if whatever was done again was done with the same samples, else where it was not."""
    known: dict[Place, Fed] = {}
    for number, start in enumerate(starts):
        for fed in start:
            before = known.setdefault(fed.place, fed)
            if before.draws != fed.draws:
                return f"{_named(fed.place)} had {_ids(before)}, and in start {number} {_ids(fed)}"
    return None


def epochs_fault(fed: dict[Place, Fed], due: Epoch, total_steps: int) -> str | None:
    """Returns None if each of ``total_steps`` has had all its samples and no epoch one twice, else the first fault."""
    for epoch, first in enumerate(range(0, total_steps, due.steps)):
        fault = _epoch_fault(fed, due, epoch, range(first, min(first + due.steps, total_steps)))
        if fault is not None:
            return f"epoch {epoch}: {fault}"
    surplus = [place for place in fed if place[0] >= total_steps]
    return f"{_named(surplus[0])} is beyond the run's {total_steps} steps" if surplus else None


def difference(reference: dict[Place, Fed], other: dict[Place, Fed]) -> str | None:
    """Returns the first place that was not fed the same in both, or None."""
    for place in sorted(reference.keys() | other.keys()):
        left, right = reference.get(place), other.get(place)
        if left is None or right is None:
            return f"{_named(place)} is missing in the {'reference' if left is None else 'killed run'}"
        if left.draws != right.draws:
            return f"{_named(place)}: {_ids(left)} != {_ids(right)}"
    return None


def _epoch_fault(fed: dict[Place, Fed], due: Epoch, epoch: int, steps: range) -> str | None:
    seen: dict[int, Draw] = {}
    positions: list[int] = []
    micro_steps, ranks = (1 + max((place[part] for place in fed), default=0) for part in (1, 2))
    slots = list(product(range(micro_steps), range(ranks)))
    for number, step in enumerate(steps):
        first = number * due.global_batch_size
        end = min(first + due.global_batch_size, due.used)
        for slot, (micro_step, rank) in enumerate(slots):
            place = step, micro_step, rank
            if place not in fed:
                return f"{_named(place)} is missing"
            if first + slot * due.global_batch_size // len(slots) >= end:  # it only keeps step in a short batch
                continue
            for draw in fed[place].draws:
                if draw.epoch != epoch:
                    return f"{_named(place)} had sample {draw.index} of epoch {draw.epoch}"
                if draw.index in seen:
                    places = f"{seen[draw.index].position} and {draw.position}"
                    return f"sample {draw.index} came twice, at positions {places}"
                seen[draw.index] = draw
                positions.append(draw.position)
        if positions != list(range(end)):
            missing = sorted(set(range(end)) - set(positions))
            how = f"{missing[0]} is missing ({len(missing)} in all)" if missing else f"they came as {positions[:8]}..."
            return f"up to step {step} positions 0 to {end - 1} are due, but {how}"
    strange = [index for index in seen if not 0 <= index < due.num_samples]
    return f"there is no sample {strange[0]}" if strange else None


def _named(place: Place) -> str:
    return f"step {place[0]}, micro-step {place[1]}, rank {place[2]}"


def _ids(fed: Fed) -> str:
    ids = ", ".join(str(draw.index) for draw in fed.draws[:8])
    return f"samples {ids}{', ...' if len(fed.draws) > 8 else ''} of epoch {fed.draws[0].epoch}"
