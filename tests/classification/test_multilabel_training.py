"""Runs on images with several labels, and with weights: ranks and interruptions change nothing."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from classification.config import ClassificationConfig
from classification.metrics.names import MULTILABEL_METRICS, TUNED_METRICS
from classification.spec import SPEC
from engine.commands.build import build_trainer
from engine.config.load import load_config
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.training.recorder import Recorder
from engine.training.state import RunState
from engine.training.trainer import Trainer
from tests.classification.small import folder_data, write_config, write_images, write_multilabel_data
from tests.distributed import ROOT, run_ranks
from tests.engine.toy import SINGLE

LEARNING = {
    "model": {"drop_path": 0.2},
    "loss": {"name": "asymmetric", "label_smoothing": 0.05, "class_weights": "log"},
    "augmentation": {"mixup": 0.8, "cutmix": 1.0},
    "optimizer": {"lr": 3e-3},
    "training": {"steps": 12, "global_batch_size": 16, "ema": {"decay": 0.9}},
    "evaluation": {"every_steps": 4, "batch_size": 7},
    "checkpoint": {"every_steps": 3},
}


class Kept(Recorder):
    """Keeps checkpoints and evaluations in memory."""

    def __init__(self) -> None:
        self.checkpoints: dict[int, dict[str, Any]] = {}
        self.evaluations: dict[int, dict[str, float]] = {}

    def evaluated(self, state: RunState, epoch: float, split: str, metrics: dict[str, float]) -> None:
        self.evaluations[state.step] = metrics

    def save(self, state: RunState, content: dict[str, Any], best: bool) -> None:
        self.checkpoints[state.step] = deepcopy(content)


def trainer_for(config: Path, *overrides: str, ranks: Ranks = SINGLE) -> Trainer:
    return build_trainer(SPEC, load_config(ClassificationConfig, config, overrides), ranks)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("several labels")
    return write_config(folder, data=write_multilabel_data(folder / "images", test=8), **LEARNING)


@pytest.fixture(scope="module")
def whole(config) -> tuple[Kept, Trainer]:
    """A run that nothing interrupted."""
    kept, trainer = Kept(), trainer_for(config)
    assert trainer.fit(kept)
    return kept, trainer


def test_evaluations_measure_and_thresholds_are_kept_with_the_weights(whole):
    kept, trainer = whole
    measured = trainer.task.metrics
    assert measured.default == "mAP" and set(kept.evaluations) == {4, 8, 12}
    assert tuple(measured.directions) == (*MULTILABEL_METRICS, *TUNED_METRICS) == tuple(kept.evaluations[12])
    saved = kept.checkpoints[12]
    assert saved["metadata"]["classes"] == ["blue", "green", "red"] and saved["metadata"]["multi_label"] is True
    assert "mAP" in saved["run"]["best"]
    again = trainer.evaluate("val")  # of the averaged weights, as during training
    assert saved["run"]["findings"] == again.findings and again.metrics == kept.evaluations[12]
    assert len(again.findings["thresholds"]) == 3 and again.findings["thresholds"] != [0.5] * 3


def test_thresholds_are_never_tuned_on_test(whole):
    tested = whole[1].evaluate("test")
    assert tested.findings == {} and set(tested.metrics) == set(MULTILABEL_METRICS)


def test_it_learns(whole):
    kept, _ = whole
    chance = np.array([0.6, 0.35, 0.15]).mean()
    assert kept.evaluations[12]["mAP"] > chance + 0.25
    assert kept.evaluations[12]["f1_macro_tuned"] >= kept.evaluations[12]["f1_macro"]


@pytest.mark.parametrize("step", [3, 8])
def test_a_resumed_run_is_bitwise_the_same(whole, config, step):
    """Right after a step, and after an evaluation."""
    kept, _ = whole
    again, trainer = Kept(), trainer_for(config)
    trainer.load_state_dict(deepcopy(kept.checkpoints[step]))
    assert trainer.fit(again)
    ours, theirs = again.checkpoints[12], kept.checkpoints[12]
    for part in ("model", "ema"):
        assert all(torch.equal(tensor, theirs[part][name]) for name, tensor in ours[part].items())
    assert ours["run"] == theirs["run"]
    assert again.evaluations == {at: values for at, values in kept.evaluations.items() if at > step}


def some_steps(ranks: Ranks, config: str, *overrides: str) -> dict[str, Any]:
    """Losses of three steps, and what the new model's evaluation says before them."""
    trainer = trainer_for(Path(config), "model.drop_path=0.0", "training.ema=null", *overrides, ranks=ranks)
    evaluated, losses, batches = trainer.evaluate("val"), [], trainer.batches()
    for _ in range(3):
        trainer.state.window = type(trainer.state.window)()
        trainer.train_step(batches)
        trainer.settle()
        losses.append(trainer.state.window.means()["loss"])
    return {"losses": losses, "metrics": evaluated.metrics, "findings": evaluated.findings}


def test_two_ranks_and_accumulation_train_and_measure_the_same(config):
    alone = some_steps(SINGLE, str(config))
    assert some_steps(SINGLE, str(config), "training.micro_batch_size=4")["losses"] == pytest.approx(
        alone["losses"], rel=1e-5
    )
    for other in run_ranks(2, some_steps, str(config)):
        assert other["losses"] == pytest.approx(alone["losses"], rel=1e-5)
        assert other["metrics"] == alone["metrics"] and other["findings"] == alone["findings"]


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "bce"])
def test_weights_do_not_depend_on_how_a_batch_is_cut(tmp_path, name):
    write_images(tmp_path / "train", {"rare": 4, "some": 12, "many": 32})
    write_images(tmp_path / "val", {"rare": 2, "some": 2, "many": 2})
    changes = {**LEARNING, "loss": {"name": name, "class_weights": "inverse", "label_smoothing": 0.1}}
    config = str(write_config(tmp_path, data=folder_data(tmp_path), **changes))
    alone = some_steps(SINGLE, config)
    parts = some_steps(SINGLE, config, "training.micro_batch_size=2")
    assert parts["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert parts["metrics"] == alone["metrics"]


def test_a_loss_that_does_not_fit_the_data_is_refused(config, tmp_path):
    with pytest.raises(UserError, match=r"\w: loss\.name: cross_entropy is for one label .* set loss\.name: bce"):
        trainer_for(config, "loss={name: cross_entropy}")
    with pytest.raises(UserError, match=r"command line: loss\.name: asymmetric is for several labels"):
        trainer_for(write_config(tmp_path), "loss.name=asymmetric")


@pytest.mark.parametrize("cell", ["nan", "", "0.5", "yes"])
def test_targets_that_are_no_numbers_are_refused(tmp_path, cell):
    data = write_multilabel_data(tmp_path / "images")
    table = tmp_path / "columns.csv"
    table.write_text(f"file,cat,dog,split\n000.jpg,1,0,train\n001.jpg,{cell},1,train\n048.jpg,1,1,val\n")
    data |= {"csv": str(table), "label_columns": ["cat", "dog"], "label_separator": None}
    with pytest.raises(UserError, match=r"columns\.csv:3: .*0 or 1"):
        trainer_for(write_config(tmp_path, data=data, **LEARNING))


def test_the_shipped_recipe_runs(config):
    """With a tiny model, and a table as the recipe describes it."""
    changes = yaml.safe_load(config.read_text())
    data = {f"data.{key}={json.dumps(changes['data'][key])}" for key in ("root", "csv", "image_size", "workers")}
    model = f"model={json.dumps(changes['model'])}"
    smaller = ["training.global_batch_size=16", "finetune.weights=null", "distributed.device=cpu"]
    trainer = trainer_for(ROOT / "configs/classification/multi_label.yaml", *data, model, *smaller)
    trainer.train_step(trainer.batches())
    trainer.settle()
    assert trainer.state.updates == 1
    assert 0 < trainer.evaluate("val").metrics["mAP"] <= 1


def test_a_metric_of_the_other_kind_is_refused(config):
    with pytest.raises(UserError, match="'top1' is not measured; there are loss, mAP, hamming_loss"):
        trainer_for(config, "evaluation.metric=top1")
    with pytest.raises(UserError, match="'f1_macro_tuned' is not measured"):
        trainer_for(config, "evaluation.metric=f1_macro_tuned", "evaluation.thresholds=0.5")
