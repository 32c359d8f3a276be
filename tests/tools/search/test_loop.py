"""The loop of a search: what is asked, pruned and told; and that a kill at any moment changes nothing of it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from engine.errors import UserError
from tests.tools.search.world import NOTE, World
from tools.search.loop import MOST_STARTS, Search
from tools.search.space import SearchSpace
from tools.search.trials import JOURNAL, LOCK, Trials, fact

COUNT = 12
SPACE = SearchSpace.model_validate(
    {
        "parameters": {"optimizer.lr": {"log": (1e-5, 1e-1)}, "optimizer.weight_decay": {"uniform": (0.0, 0.2)}},
        "sampler": {"name": "TPESampler", "seed": 1, "n_startup_trials": 4},
        "pruner": {"name": "MedianPruner", "n_startup_trials": 3},
    }
)


class Killed(BaseException):
    """What a kill is to a process."""


def begin(folder: Path, world: World, appends: int | None = None) -> Search:
    """A search that goes on with what lies in ``folder``; killed at the journal's entry of that number."""
    trials = Trials.open(folder, SPACE, "max")
    if appends is not None:
        backend, left = trials.storage._backend, iter(range(appends, -2, -1))
        append = backend.append_logs

        def counted(logs: list[dict[str, Any]]) -> None:
            if next(left) < 0:
                raise Killed
            append(logs)

        backend.append_logs = counted  # type: ignore[method-assign]
    return Search(trials, world, "top1", "max", told=lambda line: None)


def outcome(search: Search) -> list[tuple[Any, ...]]:
    return [(t.state, t.value, t.params, t.intermediate_values) for t in search.trials.all()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[tuple[Any, ...]], int]:
    """What a search comes to that nobody kills, and the number of entries in its journal."""
    folder = tmp_path_factory.mktemp("search")
    search = begin(folder, World(folder / "runs"))
    search.run(COUNT, 1, 0)
    return outcome(search), len((folder / JOURNAL).read_text().splitlines())


def test_poor_trials_are_pruned_and_the_best_is_known(undisturbed: Any, tmp_path: Path) -> None:
    found, _ = undisturbed
    states = [state for state, *_ in found]
    assert len(found) == COUNT and states.count(TrialState.PRUNED) >= 1 and states.count(TrialState.COMPLETE) >= 3
    assert all(len(values) < 4 for state, _, _, values in found if state == TrialState.PRUNED)


@pytest.mark.parametrize("part", range(10))
def test_a_search_that_is_killed_twice_ends_as_one_that_was_not(part: int, undisturbed: Any, tmp_path: Path) -> None:
    found, entries = undisturbed
    world = World(tmp_path / "runs")
    for _ in range(2):
        search = begin(tmp_path, world, 2 + part * entries // 24)
        with pytest.raises(Killed):
            search.run(COUNT, 1, 0)
    search = begin(tmp_path, world)
    search.run(COUNT, 1, 0)
    assert outcome(search) == found
    assert len(list((tmp_path / "runs").iterdir())) == COUNT, "a trial has one experiment"


def test_a_line_that_was_not_written_whole_is_forgotten(undisturbed: Any, tmp_path: Path) -> None:
    world = World(tmp_path / "runs")
    with pytest.raises(Killed):
        begin(tmp_path, world, 25).run(COUNT, 1, 0)
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    search = begin(tmp_path, world)
    search.run(COUNT, 1, 0)
    assert outcome(search) == undisturbed[0]


def test_a_journal_that_is_damaged_is_named_by_its_line(tmp_path: Path) -> None:
    begin(tmp_path, World(tmp_path / "runs")).run(1, 1, 0)
    file = tmp_path / JOURNAL
    lines = file.read_bytes().splitlines(keepends=True)
    for wrong in (b"\xff\n", b"{}\n", b"7\n", b'{"op_code"\n'):
        for place in (3, len(lines)):
            file.write_bytes(b"".join([*lines[:place], wrong, *lines[place:]]))
            with pytest.raises(UserError, match=rf"\.log: line {place + 1} is damaged; cut the file .* --name NAME"):
                Trials.open(tmp_path, SPACE, "max")
    file.write_bytes(b"".join(lines[1:]))
    with pytest.raises(UserError, match=r"journal\.log: its beginning is missing; --name NAME"):
        Trials.open(tmp_path, SPACE, "max")
    file.write_bytes(b"")
    with pytest.raises(UserError, match="nothing is in it yet"):
        Trials.open(tmp_path, SPACE, "max", write=False)


def test_a_writer_that_was_killed_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / LOCK).symlink_to(tmp_path / JOURNAL)
    begin(tmp_path, World(tmp_path / "runs")).run(1, 1, 0)
    assert not (tmp_path / LOCK).is_symlink()


@pytest.mark.parametrize("left", [False, True])
def test_a_trial_whose_folder_is_gone_is_a_failure(tmp_path: Path, left: bool) -> None:
    class Gone(World):
        def views(self, runs: Any) -> Any:
            views = super().views(runs)
            if views and views[0].folder.name == "experiment_0001" and views[0].note is not None:
                (self.root / "experiment_0005").mkdir()  # the next one has another number
                shutil.rmtree(views[0].folder.path, ignore_errors=True)
                if left:  # a folder with nothing in it
                    views[0].folder.path.mkdir()
                views[0] = replace(views[0], state="unknown", alive=False)
                self.states["experiment_0001"] = "unknown"
            return views

    search = begin(tmp_path, Gone(tmp_path / "runs"))
    search.run(2, 1, 0)
    first, second = search.trials.all()
    assert first.state == TrialState.FAIL and "experiment_0001 is gone" in fact(first, "why")
    assert second.state == TrialState.COMPLETE


def test_a_local_trial_that_another_host_has_lost_is_queued_again(tmp_path: Path) -> None:
    class Elsewhere(World):
        def views(self, runs: Any) -> Any:
            return [
                replace(view, alive=None, state="lost" if self.queued.count(view.folder.name) == 1 else view.state)
                if view.note is not None
                else view
                for view in super().views(runs)
            ]

    world = Elsewhere(tmp_path / "runs")
    begin(tmp_path, world).run(1, 1, 0)
    assert world.queued == ["experiment_0001"] * 2


def test_as_many_run_at_once_as_are_asked_for_each_on_a_place_of_its_own(tmp_path: Path) -> None:
    world = World(tmp_path / "runs")
    begin(tmp_path, world).run(5, 3, 0)
    assert sorted(world.places[:3]) == [0, 1, 2] and set(world.places) == {0, 1, 2}


def test_a_job_that_ends_without_a_word_is_queued_again_but_not_for_ever(tmp_path: Path) -> None:
    world = World(tmp_path / "runs")
    world.ends["experiment_0001"] = "lost"
    search = begin(tmp_path, world)
    original = world.views

    def gone(runs: Any) -> Any:
        return [view.__class__(**{**vars(view), "alive": False}) if view.state == "lost" else view
                for view in original(runs)]  # fmt: skip

    world.views = gone  # type: ignore[method-assign]
    search.run(2, 1, 0)
    first, second = search.trials.all()
    assert first.state == TrialState.FAIL and world.queued.count("experiment_0001") == MOST_STARTS
    assert "was started 5 times" in fact(first, "why") and second.state == TrialState.COMPLETE


def test_a_search_of_failures_ends(tmp_path: Path) -> None:
    world = World(tmp_path / "runs")
    world.ends = {f"experiment_{number:04d}": "failed" for number in range(1, 20)}
    search = begin(tmp_path, world)
    with pytest.raises(UserError, match=r"^all of the first 5 trials failed, the last one: why; .*--name NAME$"):
        search.run(COUNT, 1, 0)
    assert fact(search.trials.all()[0], "why").startswith("why; ") and NOTE.log in fact(search.trials.all()[0], "why")


def test_settings_that_do_not_go_together_fail_their_trial_alone(tmp_path: Path) -> None:
    class Picky(World):
        def claim(self, number: int, settings: Any) -> Any:
            if number == 0:
                raise UserError("schedule.min_lr is above optimizer.lr")
            return super().claim(number, settings)

    search = begin(tmp_path, Picky(tmp_path / "runs"))
    search.run(2, 1, 0)
    first, second = search.trials.all()
    assert first.state == TrialState.FAIL and "min_lr" in fact(first, "why") and second.state == TrialState.COMPLETE


def test_a_metric_that_is_never_a_number_is_a_failure(tmp_path: Path) -> None:
    world = World(tmp_path / "runs")
    search = begin(tmp_path, world)
    search.metric = "f1_macro"
    search.run(1, 1, 0)
    assert fact(search.trials.all()[0], "why") == "f1_macro was never a number"
