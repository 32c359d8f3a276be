"""Where a rank is, and that it gets on."""

from engine.pulse import Place, Pulse


def test_places_are_ordered_as_a_run_passes_through_them() -> None:
    pulse, places = Pulse(), []
    for step in (7, 8):
        pulse.at("data", step)
        places.append(pulse.place)
        for _ in range(2):  # accumulation goes through the same phases again
            for phase in ("forward", "backward", "data"):
                pulse.at(phase)  # type: ignore[arg-type]
                places.append(pulse.place)
        pulse.at("data", step)  # said once more: still the same step
        places.append(pulse.place)
    assert places == sorted(places, key=lambda place: place[:2])
    assert len({place[:2] for place in places}) == len(places)
    assert str(places[0]) == "step 7 in data"


def test_a_run_starts_at_its_start() -> None:
    assert Pulse().place == Place(0, 0, "start")


def test_everything_that_is_said_counts_as_progress() -> None:
    pulse = Pulse()
    seen = [pulse.ticks]
    for say in (lambda: pulse.at("data", 3), lambda: pulse.at("data", 3), pulse.tick):
        say()
        seen.append(pulse.ticks)
    assert seen == sorted(set(seen))


def test_items_tick_as_they_come() -> None:
    pulse, ticks = Pulse(), []
    for item in pulse.watch_iterable("abc"):
        ticks.append((item, pulse.ticks))
    assert ticks == [("a", 1), ("b", 2), ("c", 3)]
