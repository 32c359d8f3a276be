"""Files of ranges: what they may say, and what each mistake is told as."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from classification.config import ClassificationConfig
from engine.config.load import load_config
from engine.errors import UserError
from tests.classification.small import write_config
from tools.search.space import check_space, read_space, settings_of
from tools.search.trials import Trials

RANGES = """\
parameters:
  optimizer.lr: {log: [1e-5, 1e-2]}
  model.embed_dim: {integer: [12, 48], step: 12}
  training.clip_grad_norm: {uniform: [0.5, 5]}
  loss: {choice: [{name: cross_entropy}, {name: focal, gamma: 1.0}]}
  augmentation.shift: {choice: [0, 1]}
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "space.yaml"
    file.write_text(text)
    return file


def test_ranges_are_distributions_and_their_values_are_settings(tmp_path: Path) -> None:
    space = read_space(write(tmp_path, RANGES))
    assert space.distributions() == {
        "optimizer.lr": FloatDistribution(1e-5, 1e-2, log=True),
        "model.embed_dim": IntDistribution(12, 48, step=12),
        "training.clip_grad_norm": FloatDistribution(0.5, 5),
        "loss": CategoricalDistribution(['{"name": "cross_entropy"}', '{"name": "focal", "gamma": 1.0}']),
        "augmentation.shift": CategoricalDistribution([0, 1]),
    }
    config = write_config(tmp_path)
    check_space(space, ClassificationConfig, config, (), tmp_path / "space.yaml")
    values = {"optimizer.lr": 2e-05, "loss": '{"name": "focal", "gamma": 1.0}', "augmentation.shift": 0}
    read = load_config(ClassificationConfig, config, settings_of(values))
    assert (read.optimizer.lr, read.loss.name, read.augmentation.shift) == (2e-5, "focal", 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parameters:\n  a: {log: [1, 2], uniform: [0, 1]}\n", r"space\.yaml:2: parameters\.a: give one of log, unif"),
        ("parameters:\n  a: {log: [0, 1]}\n", r"space\.yaml:2: parameters\.a\.log"),
        ("parameters:\n  a: {uniform: [2, 1]}\n", r"space\.yaml:2: parameters\.a\.uniform: the smaller number comes"),
        ("parameters:\n  a: {lgo: [1, 2]}\n", r"space\.yaml:2: parameters\.a\.lgo: unknown key; did you mean 'log'"),
        ("parameters:\n  a: {uniform: [1, 2], step: 2}\n", r"parameters\.a: step: has an effect only with integer"),
        ("parameters: {}\n", r"space\.yaml:1: parameters"),
        ("sampler: {name: RandomSampler}\n", r"space\.yaml:1: parameters: required but missing"),
        ("parameters: {a: {choice: [1]}}\nsampler: {name: TPESampeler}\n", "Optuna has no 'TPESampeler'; did you mean"),
        ("parameters: {a: {choice: [1]}}\nsampler: {seed: 1}\n", "sampler: has no name"),
        ("parameters: {a: {choice: [1]}}\nsampler: {name: TPESampler, sede: 1}\n", "TPESampler: .*'sede'"),
        ("parameters: {a: {choice: [1]}}\nsampler: {name: TPESampler, seed: x}\n", "TPESampler: seed: a whole number"),
        ("parameters: {a: {choice: [1]}}\nsampler: {name: RandomSampler, seed: -1}\n", "seed: .* from 0 on, not -1"),
        ("parameters: {a: {choice: [1]}}\npruner: {name: Hyperband}\n", "did you mean 'HyperbandPruner'"),
        ("parameters: {a: {uniform: [0, 1]}}\nsampler: {name: GridSampler}\n", "tries each value of a; give it choice"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_space(write(tmp_path, text))


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("optimizer.lrr: {log: [1e-5, 1e-2]}", r"parameters\.optimizer\.lrr: 1e-05 cannot be tried: .* unknown key"),
        ("optimizer.lr: {uniform: [-1, 1]}", r"parameters\.optimizer\.lr: -1.* cannot be tried"),
        ("model.name: {choice: [swin_tiny, swin_tinny]}", r"parameters\.model\.name: swin_tinny cannot be tried"),
    ],
)
def test_a_value_that_no_run_takes_is_refused_before_the_first_trial(
    tmp_path: Path, parameter: str, message: str
) -> None:
    file = write(tmp_path, f"parameters:\n  {parameter}\n")
    with pytest.raises(UserError, match=message):
        check_space(
            read_space(file), ClassificationConfig, write_config(tmp_path, model={"name": "swin_tiny"}), (), file
        )


@pytest.mark.parametrize("override", ["optimizer.lr=1", "loss.gamma=2"])
def test_a_key_that_is_searched_has_no_value_besides(tmp_path: Path, override: str) -> None:
    file = write(tmp_path, RANGES)
    with pytest.raises(UserError, match=f"{override.partition('=')[0]}: searched, and given a single value too"):
        check_space(read_space(file), ClassificationConfig, write_config(tmp_path), (override,), file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "  optimizer.lr: {log: [1e-5, 1e-2]}\n  optimizer: {choice: [{name: sgd}, {name: adamw}]}\n",
            "optimizer.lr: cannot be searched together with optimizer, which it is a part of",
        ),
        ("  evaluation.metric: {choice: [top1, loss]}\n", "evaluation.metric: is the same for all trials"),
        ("  experiment.root: {choice: [here, there]}\n", "experiment.root: is the same for all trials"),
    ],
)
def test_trials_can_be_told_apart_and_compared(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, f"parameters:\n{text}")
    with pytest.raises(UserError, match=message):
        check_space(read_space(file), ClassificationConfig, write_config(tmp_path), (), file)


@pytest.mark.filterwarnings("error")
def test_a_range_ends_where_its_steps_do(tmp_path: Path) -> None:
    values = read_space(write(tmp_path, "parameters: {a: {integer: [12, 50], step: 12}}\n")).parameters["a"]
    assert values.distribution() == IntDistribution(12, 48, step=12) and values.ends() == [12, 48]
    assert list(values.values() or ()) == [12, 24, 36, 48]


def test_samplers_may_hold_others_with_a_seed_for_each_trial(tmp_path: Path) -> None:
    text = "parameters: {a: {integer: [1, 40]}, b: {uniform: [0, 1]}}\n"
    text += "sampler: {name: PartialFixedSampler, fixed_params: {a: 7}, base_sampler: {name: RandomSampler}}\n"
    trials = Trials.open(tmp_path, read_space(write(tmp_path, text)), "max")
    for number in range(3):
        trials.ask()
        trials.end(number, optuna.trial.TrialState.COMPLETE, 0.0)
    assert {trial.params["a"] for trial in trials.all()} == {7}
    assert len({trial.params["b"] for trial in trials.all()}) == 3


def test_pruners_may_hold_others(tmp_path: Path) -> None:
    text = "parameters: {a: {choice: [1, 2]}}\n"
    text += "pruner: {name: PatientPruner, patience: 2, wrapped_pruner: {name: MedianPruner}}\n"
    assert isinstance(read_space(write(tmp_path, text)).build_pruner(), optuna.pruners.PatientPruner)


@pytest.mark.parametrize("sampler", ["TPESampler", "RandomSampler", "QMCSampler", "NSGAIISampler", "GridSampler"])
def test_a_sampler_proposes_the_same_to_a_search_that_goes_on(tmp_path: Path, sampler: str) -> None:
    text = "parameters: {a: {integer: [1, 40]}, b: {choice: [x, y]}}\nsampler: {name: " + sampler + ", seed: 5}\n"
    space = read_space(write(tmp_path, text))
    proposed = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        for place in range(4):
            trials = Trials.open(folder, space, "max")
            if number == 0 or place in (0, 2):  # the other is opened anew for every second trial
                kept = trials
            kept.ask()
            kept.end(place, optuna.trial.TrialState.COMPLETE, float(place))
        proposed.append([trial.params for trial in Trials.open(folder, space, "max").all()])
    assert proposed[0] == proposed[1]
    assert len({tuple(params.items()) for params in proposed[0]}) > 2


def test_every_combination_once_and_no_more(tmp_path: Path) -> None:
    text = "parameters: {a: {integer: [1, 3]}, b: {choice: [x, y]}}\nsampler: {name: GridSampler}\n"
    space = read_space(write(tmp_path, text))
    assert space.combinations() == 6
    trials = Trials.open(tmp_path, space, "min")
    for number in range(6):
        trials.ask()
        trials.end(number, optuna.trial.TrialState.COMPLETE, 0.0)
    assert len({tuple(trial.params.items()) for trial in trials.all()}) == 6
