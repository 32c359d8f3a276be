"""Which runs are compared, in which order, and in what they differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import UserError
from engine.run_folder.experiments import Run, read_runs
from tests.tools.compare.folders import write_experiment
from tools.compare.rows import chosen, columns, differing, groups, is_more_better, labels
from tools.compare.table import shown_columns


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    for number, (lr, seed, top1) in enumerate(
        [("1.0e-03", 0, 0.7), ("1.0e-03", 1, 0.9), ("3.0e-04", 0, 0.8), ("3.0e-04", 0, 0.6)], start=1
    ):
        name = "tuned" if number == 4 else ""
        write_experiment(tmp_path, number, lr=lr, seed=seed, top1=top1, name=name, epochs=3 if number == 4 else 4)
    (tmp_path / "notes").mkdir()
    return read_runs([tmp_path])


def numbers(found: list[Run]) -> list[int]:
    return [int(run.path.name[-1]) for run in found if run.state != "foreign"]


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        (["optimizer.lr=1e-3"], [1, 2]),
        (["optimizer.lr=0.001", "experiment.seed=1"], [2]),
        (["lr=3e-4", "name=tuned"], [4]),
        (["training.ema=null"], [1, 2, 3, 4]),
        (["model.depths=[2,2,6,2]", "training.epochs=3"], [4]),
        (["state=finished"], [1, 2, 3, 4]),
        (["top1=0.9"], [2]),
        (["data.source=mnist"], []),
    ],
)
def test_where_compares_values_as_yaml_means_them(runs: list[Run], conditions: list[str], found: list[int]) -> None:
    assert numbers(chosen(runs, conditions, None, None)) == found


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("optimizer.lr", "--where: 'optimizer.lr' is not of the form key=value"),
        ("optimizer.rl=1", "--where: no run has 'optimizer.rl'; did you mean 'optimizer.lr'"),
    ],
)
def test_a_condition_that_nobody_can_meet_is_the_users_error(runs: list[Run], condition: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        chosen(runs, [condition], None, None)


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("top1", [2, 3, 1, 4]),
        ("last.top1", [2, 3, 1, 4]),
        ("loss", [1, 2, 3, 4]),
        ("optimizer.lr", [3, 4, 1, 2]),
        ("experiment", [1, 2, 3, 4]),
        ("hours", [4, 1, 2, 3]),
    ],
)
def test_the_best_come_first_and_those_without_a_value_last(runs: list[Run], sort: str, order: list[int]) -> None:
    found = chosen(runs, [], None, sort)
    assert numbers(found) == order
    assert (found[-1].state == "foreign") or sort == "experiment"


def test_columns_are_named_as_they_are_shown(runs: list[Run]) -> None:
    headings = {column.heading: column.key for column in shown_columns(runs)}
    for heading in ("best top1", "GB", "img/s", "params", "lr", "seed"):
        assert chosen(runs, [], None, heading, headings), heading
    assert numbers(chosen(runs, ["lr=1e-3"], None, "lr", headings)) == [1, 2]
    assert numbers(chosen(runs, ["name=tuned"], None, None, {"name": "model.name"})) == [4]


def test_a_setting_is_meant_before_what_training_records_under_its_name(runs: list[Run]) -> None:
    assert {run.row()["optimizer.lr"] for run in chosen(runs, ["lr=1e-3"], None, None)} == {1e-3}
    assert "train.lr" in columns(runs)


def test_sorting_by_what_nobody_has_is_the_users_error(runs: list[Run]) -> None:
    with pytest.raises(UserError, match=r"--sort: no run has 'top5'; did you mean 'best\.top1'"):
        chosen(runs, [], None, "top5")


def test_the_last_are_the_newest_experiments(runs: list[Run]) -> None:
    assert numbers(chosen(runs, [], 2, None)) == [3, 4]
    assert numbers(chosen(runs, ["lr=1e-3"], 1, "top1")) == [2]


def test_the_newest_are_those_that_began_last_whatever_they_are_called(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write_experiment(tmp_path, number)
    (tmp_path / "experiment_0003").rename(tmp_path / "a_final")
    (run,) = chosen(read_runs([tmp_path]), [], 1, None)
    assert run.path.name == "a_final"
    queued = write_experiment(tmp_path, 4)
    queued.environment.unlink()
    assert [run.path.name for run in chosen(read_runs([tmp_path]), [], 2, None)] == ["a_final", "experiment_0004"]


def test_a_list_has_its_elements(tmp_path: Path) -> None:
    for number in (1, 2):
        file = write_experiment(tmp_path, number).config
        file.write_text(file.read_text().replace("tags: []", f"tags: [search k, trial {number}]"))
    runs = read_runs([tmp_path])
    assert numbers(chosen(runs, ["tags=trial 2"], None, None)) == [2]
    assert numbers(chosen(runs, ["tags=search k"], None, None)) == [1, 2]
    assert not chosen(runs, ["tags=k"], None, None)


def test_what_differs_is_all_that_is_shown_of_the_settings(runs: list[Run], tmp_path: Path) -> None:
    assert differing(runs) == ["optimizer.lr", "training.epochs", "experiment.seed"]
    assert differing(runs[:1]) == []
    other = write_experiment(tmp_path / "other", 1)
    other.config.write_text(other.config.read_text() + "\ndetection:\n  backbone: swin\n")
    assert "detection.backbone" not in differing([*runs, *read_runs([other.path])]), "one task alone has it"


def test_groups_are_runs_that_differ_in_their_seed_and_in_what_has_no_effect(runs: list[Run], tmp_path: Path) -> None:
    again = write_experiment(tmp_path / "again", 9, seed=7, name="again")
    again.config.write_text(again.config.read_text().replace("every_steps: 50", "every_steps: 5"))
    parts = groups([*runs, *read_runs([again.path])])
    assert [numbers(part) for part in parts] == [[1, 2, 9], [3], [4]]
    assert labels(parts) == [
        "3 runs (lr=0.001, epochs=4)",
        "experiment_0003 (lr=0.0003, epochs=4)",
        "experiment_0004 (lr=0.0003, epochs=3)",
    ]


def test_names_of_groups_are_short_and_tell_them_apart() -> None:
    parts = [
        [Run(Path(f"experiment_000{n}"), settings={**{f"a.{k}": n for k in range(5)}, "a.5": n % 2})] * 2
        for n in (1, 2)
    ]
    assert labels(parts) == ["2 runs (0=1, 1=1, 2=1, 3=1, …)", "2 runs (0=2, 1=2, 2=2, 3=2, …)"]
    for part in parts:
        part[0].settings.update({f"a.{k}": k for k in range(5)})
    assert labels([*parts, parts[0]])[0] == "2 runs (5=1) from experiment_0001 on"


def test_directions_are_those_that_runs_tell_or_that_names_suggest(runs: list[Run]) -> None:
    assert is_more_better("best.top1", runs) and is_more_better("best.AP50", runs)
    assert not any(is_more_better(name, runs) for name in ("last.loss", "best.ece", "best.fid", "best.epoch", "hours"))
    assert is_more_better("images_per_second", runs)
    odd = Run(Path("x"), metric="loss", direction="max")
    assert is_more_better("best.loss", [odd])
