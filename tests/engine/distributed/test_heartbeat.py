"""Where a rank is, and that it gets on."""

from engine.distributed.heartbeat import Heartbeat, Place


def test_places_are_ordered_as_a_run_passes_through_them() -> None:
    heartbeat, places = Heartbeat(), []
    for step in (7, 8):
        heartbeat.at("data", step)
        places.append(heartbeat.place)
        for _ in range(2):  # accumulation goes through the same phases again
            for phase in ("forward", "backward", "data"):
                heartbeat.at(phase)  # type: ignore[arg-type]
                places.append(heartbeat.place)
        heartbeat.at("data", step)  # said once more: still the same step
        places.append(heartbeat.place)
    assert places == sorted(places, key=lambda place: place[:2])
    assert len({place[:2] for place in places}) == len(places)
    assert str(places[0]) == "step 7 in data"


def test_a_run_starts_at_its_start() -> None:
    assert Heartbeat().place == Place(0, 0, "start")


def test_everything_that_is_said_counts_as_progress() -> None:
    heartbeat = Heartbeat()
    seen = [heartbeat.ticks]
    for say in (lambda: heartbeat.at("data", 3), lambda: heartbeat.at("data", 3), heartbeat.tick):
        say()
        seen.append(heartbeat.ticks)
    assert seen == sorted(set(seen))


def test_a_collective_is_a_move_within_the_phase() -> None:
    heartbeat = Heartbeat()
    heartbeat.at("data", 3)
    heartbeat.move()
    assert heartbeat.place == Place(3, 1, "data")


def test_what_comes_before_the_end_of_a_first_step_is_slow() -> None:
    for begun in (0, 500):
        heartbeat = Heartbeat()
        heartbeat.at("start", begun)
        assert heartbeat.slow
        heartbeat.at("evaluate")  # one that was owed at a restart
        assert not heartbeat.slow
        for phase in ("data", "forward", "backward", "update", "data"):
            heartbeat.at(phase, begun if phase == "data" else None)  # type: ignore[arg-type]
            assert heartbeat.slow, phase
        heartbeat.at("data", begun + 1)
        assert not heartbeat.slow


def test_a_step_that_compiles_anew_is_slow_and_so_are_figures_of_rank_0() -> None:
    heartbeat = Heartbeat()
    for step in range(3):
        heartbeat.at("data", step)
    heartbeat.at("measure")
    assert heartbeat.slow
    heartbeat.at("save")
    assert not heartbeat.slow
    heartbeat.warm_up()
    heartbeat.at("data", 3)
    assert heartbeat.slow
    heartbeat.at("data", 4)
    assert not heartbeat.slow
