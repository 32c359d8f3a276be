"""Settings without effect: refused where they are written, left out where they are inherited."""

from __future__ import annotations

from pathlib import Path

import pytest
from timm.optim import get_optimizer_info, list_optimizers

from engine.config.section import dump_config, load_config
from engine.config.sections import COMMON_OPTIMIZERS, RunConfig
from engine.errors import UserError


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(text: str, *overrides: str, name: str = "run.yaml") -> RunConfig:
    Path(name).write_text(text or "{}\n")
    return load_config(RunConfig, Path(name), overrides)


PLATEAU = "schedule:\n  name: plateau\n  min_lr: 1e-5\n  plateau: {factor: 0.5, patience: 3}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "schedule:\n  plateau: {factor: 0.5}\n",
            "run.yaml:2: schedule.plateau.factor: has an effect only with name: plateau; remove it, or write its "
            "default, 0.1",
        ),
        (
            "schedule:\n  name: cosine\n  plateau:\n    patience: 3\n    factor: 0.5\n",
            "run.yaml:5: schedule.plateau.factor: has an effect only with name: plateau, and so has plateau.patience; "
            "remove them",
        ),
        ("schedule: {name: plateau, gamma: 0.2}\n", "schedule.gamma: has an effect only with name: milestones"),
        ("schedule: {milestones: [2]}\n", "schedule.milestones: has an effect only with name: milestones"),
        ("schedule: {one_cycle_rise: 0.2}\n", "schedule.one_cycle_rise: has an effect only with name: one_cycle"),
        ("schedule: {name: constant, min_lr: 1e-5}\n", "only with name: cosine or plateau"),
        ("schedule: {warmup_lr: 1e-5}\n", "schedule.warmup_lr: has an effect only with warmup_epochs or warmup_steps"),
        ("schedule: {name: one_cycle, warmup_epochs: 1}\n", "schedule.warmup_epochs: has an effect only with a name"),
        ("optimizer: {momentum: 0.8}\n", "only with a name of an optimizer that has momentum, as sgd (not adamw)"),
        ("optimizer: {name: sgd, betas: [0.9, 0.9]}\n", "optimizer.betas: has an effect only with a name of an"),
        ("optimizer: {name: lion, eps: 1e-5}\n", "that has eps, as adamw (not lion)"),
        ("evaluation: {every_epochs: 2, every_steps: 9}\n", "evaluation.every_epochs: has an effect only with every_"),
        ("finetune: {freeze_batchnorm: never}\n", "finetune.freeze_batchnorm: has an effect only with unfreeze"),
    ],
)
def test_what_nothing_reads_is_refused_with_what_would_read_it(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(text)
    assert message in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        PLATEAU,
        "schedule: {name: milestones, milestones: [1, 2], gamma: 0.2, warmup_steps: 5, warmup_lr: 1e-4}\n",
        "schedule: {name: cosine, gamma: 0.1, plateau: {factor: 0.1}}\n",  # defaults, as in a resolved configuration
        "optimizer: {name: nadamw, betas: [0.9, 0.9], eps: 1e-5}\n",
        "optimizer: {name: sgd, momentum: 0.8}\n",
        "evaluation: {every_epochs: 2}\n",
        "finetune: {freeze_batchnorm: always}\n",
    ],
)
def test_what_is_read_is_taken_and_reads_back(text: str) -> None:
    config = load(text)
    assert load(dump_config(config), name="resolved.yaml") == config


def test_what_a_base_says_of_a_thing_that_is_turned_off_is_left_out() -> None:
    Path("base.yaml").write_text(PLATEAU)
    over = load("base: base.yaml\nschedule: {name: constant}\n")
    assert over.schedule == load("schedule: {name: constant}\n").schedule
    assert load(dump_config(over), name="resolved.yaml") == over
    assert load("base: base.yaml\nschedule: {name: cosine}\n").schedule.min_lr == 1e-5  # which cosine reads too
    assert load(PLATEAU, "schedule.name=constant").schedule == over.schedule
    assert load(PLATEAU, "schedule.plateau.patience=5").schedule.plateau.patience == 5


def test_of_two_ways_to_say_one_thing_the_later_counts() -> None:
    epochs, steps = "training: {epochs: 3}\nschedule: {warmup_epochs: 1}\n", "training: {steps: 9}\n"
    found = load(epochs, "training.steps=7", "schedule.warmup_steps=2")
    assert (found.training.epochs, found.training.steps) == (None, 7)
    assert (found.schedule.warmup_epochs, found.schedule.warmup_steps) == (0, 2)
    assert load(dump_config(found), name="resolved.yaml") == found
    assert load(steps, "training.epochs=2").training.epochs == 2
    load(epochs, name="base.yaml")
    assert load("base: base.yaml\n" + steps).training.steps == 9
    for text, overrides in [("training: {epochs: 3, steps: 9}\n", []), (epochs, ["training={epochs: 2, steps: 9}"])]:
        with pytest.raises(
            UserError, match=r"(run.yaml:1|command line): training.epochs: give `epochs` or `steps`, not"
        ):
            load(text, *overrides)


def test_what_is_left_out_takes_with_it_what_only_it_needed() -> None:
    text = "schedule: {warmup_epochs: 1, warmup_lr: 1e-4, min_lr: 1e-5}\n"
    assert load(text, "schedule.name=one_cycle").schedule == load("schedule: {name: one_cycle}\n").schedule


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("base: base.yaml\nschedule: {name: constant, plateau: {patience: 4}}\n", ()),
        ("base: constant.yaml\nschedule: {plateau: {patience: 4}}\n", ()),
        ("base: constant.yaml\n", ("schedule.plateau.patience=4",)),
        ("base: base.yaml\n", ("schedule.name=constant", "schedule.plateau.patience=4")),
    ],
)
def test_what_is_said_with_or_over_the_setting_that_turns_it_off_is_refused(
    text: str, overrides: tuple[str, ...]
) -> None:
    Path("base.yaml").write_text(PLATEAU)
    Path("constant.yaml").write_text("schedule: {name: constant}\n")
    with pytest.raises(UserError, match=r"(run\.yaml:\d|command line): schedule\.plateau\.patience: has an effect"):
        load(text, *overrides)


def test_all_are_told_at_once_each_once() -> None:
    text = "schedule: {name: constant, gamma: 0.3, min_lr: 1e-5, one_cycle_rise: 0.2}\noptimizer: {lr: 0}\n"
    with pytest.raises(UserError) as caught:
        load(text)
    named = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert sorted(named) == [
        "optimizer.lr", "schedule.gamma", "schedule.min_lr", "schedule.one_cycle_rise",
    ]  # fmt: skip


def test_other_mistakes_are_still_told() -> None:
    Path("base.yaml").write_text(PLATEAU)
    with pytest.raises(UserError, match=r"run\.yaml:3: optimizer\.lr: must be greater than 0"):
        load("base: base.yaml\nschedule: {name: constant}\noptimizer: {lr: 0}\n")


def test_what_common_optimizers_read_is_what_timm_says() -> None:
    assert set(COMMON_OPTIMIZERS) <= set(list_optimizers())
    for name, keys in COMMON_OPTIMIZERS.items():
        about = get_optimizer_info(name)
        assert {key for key in ("momentum", "betas", "eps") if getattr(about, f"has_{key}")} == set(keys), name
