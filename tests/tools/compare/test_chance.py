"""What chance would do: intervals that hold what they promise, and no difference where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.run_folder.experiments import Run, read_runs
from tests.tools.compare.folders import write_experiment, write_predictions
from tools.compare import chance
from tools.compare.chance import difference_of_means, mcnemar, of_images, of_seeds, read_right, statements


def runs_of(root: Path, *values: tuple[str, int, float], state: str = "finished") -> list[Run]:
    for number, (lr, seed, top1) in enumerate(values, start=1):
        write_experiment(root, number, lr=lr, seed=seed, top1=top1, state=state)
    return read_runs([root])


@pytest.mark.parametrize("count", [3, 5])
def test_intervals_of_few_seeds_hold_the_truth_as_often_as_they_say(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chance, "RESAMPLES", 1000)
    rng = np.random.default_rng(0)
    draws = rng.normal(0, 1, (400, 2, count)) + np.array([[[0.7], [0.0]]])
    found = [difference_of_means(*pair) for pair in draws]
    held = np.mean([each.low <= 0.7 <= each.high for each in found])
    assert 0.88 <= held <= 0.985, "plain percentiles hold it in 80 % or less"


def test_the_difference_is_that_of_the_means_and_the_interval_reproducible() -> None:
    one, two = np.array([0.91, 0.92, 0.93]), np.array([0.81, 0.82, 0.86])
    first, again = difference_of_means(one, two), difference_of_means(one, two)
    assert first == again and first.difference == pytest.approx(0.09)
    assert first.low < 0.09 < first.high and not first.by_chance
    assert difference_of_means(one, one).by_chance
    constant = difference_of_means(np.ones(3), np.zeros(3))
    assert (constant.low, constant.high) == (1.0, 1.0)


def test_a_stricter_level_is_wider() -> None:
    one, two = np.array([0.91, 0.92, 0.93, 0.9]), np.array([0.81, 0.82, 0.86, 0.9])
    assert difference_of_means(one, two, 0.99).low < difference_of_means(one, two, 0.95).low


def test_groups_of_seeds_are_compared_with_the_best(tmp_path: Path) -> None:
    good, near, bad = ((lr, [(lr, seed, value + seed / 500) for seed in range(3)]) for lr, value in LEVELS)
    lines = of_seeds(runs_of(tmp_path, *good[1], *near[1], *bad[1]))
    assert len(lines) == 2
    assert lines[0].startswith(
        "top1: 3 runs (lr=0.001) 0.9020 ± 0.0020 beside 3 runs (lr=0.002) 0.9010 ± 0.0020: +0.0010"
    )
    assert "(one of 2 comparisons): no more than chance would do" in lines[0]
    assert "beside 3 runs (lr=0.003)" in lines[1] and lines[1].endswith("more than chance would do")
    assert "no more" not in lines[1]


LEVELS = (("1.0e-03", 0.9), ("2.0e-03", 0.899), ("3.0e-03", 0.7))


def test_a_seed_that_was_run_twice_is_no_second_seed(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, ("1.0e-03", 0, 0.9), ("1.0e-03", 0, 0.9), ("2.0e-03", 0, 0.8), ("2.0e-03", 0, 0.8))
    (line,) = of_seeds(runs)
    assert "one run of each configuration says nothing about chance" in line


def test_two_seeds_are_too_few_to_tell(tmp_path: Path) -> None:
    values = [(lr, seed, value + seed / 100) for lr, value in (("1.0e-03", 0.9), ("2.0e-03", 0.8)) for seed in (0, 1)]
    assert of_seeds(runs_of(tmp_path, *values)) == [
        "top1: 2 runs (lr=0.001) 0.9050 ± 0.0071, mean and standard deviation",
        "top1: 2 runs (lr=0.002) 0.8050 ± 0.0071, mean and standard deviation",
        "top1: fewer than 3 seeds say nothing about chance: run more of each",
    ]


def test_runs_that_are_not_finished_are_not_counted(tmp_path: Path) -> None:
    assert of_seeds(runs_of(tmp_path, ("1.0e-03", 0, 0.9), ("2.0e-03", 1, 0.8), state="interrupted")) == []


def test_one_group_of_seeds_has_its_mean_and_one_run_nothing(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, ("1.0e-03", 0, 0.9), ("1.0e-03", 1, 0.8))
    assert statements(runs) == ["top1: 2 runs 0.8500 ± 0.0707, mean and standard deviation"]
    assert statements(runs[:1]) == []


def test_mcnemar_is_the_exact_binomial_test() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == pytest.approx(1.0)
    assert mcnemar(10, 0) == pytest.approx(2 / 2**10)
    assert mcnemar(1, 7) == mcnemar(7, 1) == pytest.approx(2 * (1 + 8) / 2**8)


def test_runs_on_the_same_images_are_compared_image_by_image(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, ("1.0e-03", 0, 0.9), ("2.0e-03", 0, 0.8), ("3.0e-03", 0, 0.7))
    right = np.arange(200) < 180
    worse, alike = right & (np.arange(200) >= 20), right ^ (np.arange(200) >= 198)
    for run, own in zip(runs, (right, worse, alike), strict=True):
        write_predictions(folder_of(run), own)
    first, second = of_images(runs)
    assert first == (
        "experiment_0001 beside experiment_0002: of the same 200 images of val 20 are right in the first alone, 0 in "
        "the second alone (+0.1000), p = 3.8e-06 (one of 2 comparisons): more than chance would do"
    )
    assert "0 are right in the first alone, 2 in the second alone (-0.0100), p = 1 " in second
    assert second.endswith("no more than chance would do")


def test_other_images_are_not_compared_and_test_comes_before_val(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, ("1.0e-03", 0, 0.9), ("2.0e-03", 0, 0.8))
    for run, count in zip(runs, (10, 11), strict=True):
        write_predictions(folder_of(run), np.ones(count, bool))
    (line,) = of_images(runs)
    assert line.endswith("their predictions of val are not of the same images: not compared")
    for run in runs:
        write_predictions(folder_of(run), np.ones(10, bool), "test")
    assert "same 10 images of test" in of_images(runs)[0]


def folder_of(run: Run):  # type: ignore[no-untyped-def]
    from engine.run_folder.paths import RunDir

    return RunDir(run.path)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "image,true,class_1\n", "image,true,class_1\nx\n", "\udcff"])
def test_a_file_that_is_no_table_of_predictions_is_passed_over(tmp_path: Path, text: str) -> None:
    file = tmp_path / "predictions.csv"
    file.write_text(text, errors="surrogateescape")
    assert read_right(file) is None and read_right(tmp_path / "missing") is None


def test_several_labels_an_image_are_right_if_all_are(tmp_path: Path) -> None:
    file = tmp_path / "predictions.csv"
    file.write_text("image,true,predicted,loss\na,x|y,x|y,0\nb,x,x|y,0\nc,,,0\n")
    assert read_right(file) == {"a": ("x|y", True), "b": ("x", False), "c": ("", True)}
