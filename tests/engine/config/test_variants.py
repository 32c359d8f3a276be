"""Keys of other variants, and keys without effect: refused where they are written, left out where inherited."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from timm.optim import get_optimizer_info

from engine.config.load import dump_config, load_config
from engine.config.optimization import COMMON_NAMES, AdamConfig, CommonOptimizer, SgdConfig
from engine.config.run import RunConfig
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
            "run.yaml:2: schedule.plateau.factor: cosine has no such key; it is plateau's (schedule.name)",
        ),
        (
            "schedule:\n  name: cosine\n  plateau:\n    patience: 3\n    factor: 0.5\n",
            "run.yaml:4: schedule.plateau.patience: cosine has no such key; it is plateau's (schedule.name)\n"
            "run.yaml:5: schedule.plateau.factor: cosine has no such key; it is plateau's (schedule.name)",
        ),
        ("schedule: {name: plateau, gamma: 0.2}\n", "schedule.gamma: plateau has no such key; it is milestones's"),
        ("schedule: {milestones: [2]}\n", "schedule.milestones: cosine has no such key; it is milestones's"),
        ("schedule: {one_cycle_rise: 0.2}\n", "schedule.one_cycle_rise: cosine has no such key; it is one_cycle's"),
        (
            "schedule: {name: constant, min_lr: 1e-5}\n",
            "constant has no such key; it is cosine's and plateau's",
        ),
        ("schedule: {warmup_lr: 1e-5}\n", "schedule.warmup_lr: has an effect only with warmup_epochs or warmup_steps"),
        (
            "schedule: {name: one_cycle, warmup_epochs: 1}\n",
            "warmup_epochs: one_cycle has no such key; it is cosine's",
        ),
        (
            "optimizer: {momentum: 0.8}\n",
            "adamw has no such key; it is sgd's and momentum's (optimizer.name)",
        ),
        (
            "optimizer: {name: sgd, betas: [0.9, 0.9]}\n",
            "betas: sgd has no such key; it is adamw's, adam's and",
        ),
        (
            "optimizer: {name: lion, eps: 1e-5}\n",
            "eps: has an effect only with an optimizer that has it",
        ),
        (
            "evaluation: {every_epochs: 2, every_steps: 9}\n",
            "evaluation.every_epochs: give `every_epochs` or",
        ),
        ("finetune: {freeze_batchnorm: never}\n", "finetune.freeze_batchnorm: has an effect only with unfreeze"),
    ],
)
def test_what_nothing_reads_is_refused_with_what_would_read_it(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        PLATEAU,
        "schedule: {name: milestones, milestones: [1, 2], gamma: 0.2, warmup_steps: 5, warmup_lr: 1e-4}\n",
        "schedule: {name: cosine, warmup_lr: 1e-6}\n",  # a default, as in a resolved configuration
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
    with pytest.raises(UserError, match=r"(run\.yaml:\d|command line): schedule\.plateau\.patience: constant has no"):
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
    with pytest.raises(UserError, match=r"run\.yaml:3: optimizer\.lr: must be a number > 0"):
        load("base: base.yaml\nschedule: {name: constant}\noptimizer: {lr: 0}\n")


def test_optimizers_have_the_keys_that_timm_says_they_have() -> None:
    for member in (AdamConfig, SgdConfig):
        for name in get_args(member.model_fields["name"].annotation):
            about = get_optimizer_info(name)
            has = {key for key in ("momentum", "betas", "eps") if getattr(about, f"has_{key}")}
            assert name in COMMON_NAMES and has == member.model_fields.keys() - CommonOptimizer.model_fields.keys()


def test_the_name_on_the_command_line_leaves_out_what_the_file_gives_another_variant() -> None:
    text = "optimizer: {name: adamw, lr: 0.5, betas: [0.8, 0.9], eps: 1e-7}\n"
    assert load(text, "optimizer.name=sgd").optimizer == SgdConfig(name="sgd", lr=0.5)
    lion = load(text, "optimizer.name=lion").optimizer
    assert (lion.model_dump()["betas"], lion.model_dump()["eps"]) == ([0.8, 0.9], None)  # which timm knows
    with pytest.raises(UserError, match=r"^command line: optimizer\.name: timm has no optimizer 'sgdd'.*'sgd'"):
        load(text, "optimizer.name=sgdd")
    with pytest.raises(UserError, match=r"^command line: schedule\.name: must be .*; did you mean 'cosine'\?$"):
        load("schedule: {name: plateau, plateau: {factor: 0.5}}\n", "schedule.name=cosin")


def test_evaluations_are_counted_in_what_was_said_last() -> None:
    found = load("evaluation: {every_steps: 9}\n", "evaluation.every_epochs=1").evaluation
    assert (found.every_epochs, found.every_steps) == (1, None)
    assert load("{}\n").evaluation.every_epochs == 1


@pytest.mark.parametrize(
    ("text", "override", "message"),
    [
        (
            "schedule: {name: cosine, min_lr: 1e-4}\n",
            "optimizer.lr=1e-5",
            "optimizer.lr: schedule.min_lr (0.0001) is above optimizer.lr (1e-05)",
        ),
        (
            "training: {ema: {decay: 0.9}}\nevaluation: {weights: ema}\n",
            "training.ema=null",
            "training.ema: evaluation.weights is 'ema' but training.ema is not set (for example {decay: 0.9998})",
        ),
        (
            "training: {shard: optimizer}\n",
            "optimizer.name=lamb",
            "optimizer.name: training.shard: 'lamb' (optimizer.n",
        ),
    ],
)
def test_a_mistake_that_spans_two_keys_is_placed_where_the_command_line_made_it(
    text: str, override: str, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        load(text, override)
    assert str(caught.value).startswith(f"command line: {message}")


def test_an_epoch_without_a_space_behind_its_colon_is_told_in_one_line() -> None:
    with pytest.raises(UserError) as caught:
        load("", "finetune.unfreeze={0:head, 5: all}")
    text = "command line: finetune.unfreeze: 0:head: wants a space behind the colon: {0: head}"
    assert str(caught.value) == text
