"""Which settings TensorBoard's table of hyperparameters shows of a run."""

from pathlib import Path
from typing import Any

import yaml

from classification.config import ClassificationConfig
from engine.board.settings import common_settings, telling_settings
from engine.config.load import load_config


def settings(folder: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    tree = {"model": {"name": "swin_tiny"}, "data": {"source": "digits"}, **sections}
    (folder / "run.yaml").write_text(yaml.safe_dump(tree))
    return telling_settings(load_config(ClassificationConfig, folder / "run.yaml"))


def test_those_that_commonly_differ_are_always_shown(tmp_path: Path) -> None:
    assert settings(tmp_path) == {
        "model.name": "swin_tiny",
        "data.source": "digits",
        "data.image_size": 224,
        "optimizer.name": "adamw",
        "optimizer.lr": 0.001,
        "optimizer.weight_decay": 0.05,
        "schedule.name": "cosine",
        "training.epochs": 30,
        "training.global_batch_size": 128,
        "training.precision": "auto",
        "experiment.seed": 0,
    }


def test_those_that_were_given_are_shown_but_those_without_effect(tmp_path: Path) -> None:
    shown = settings(
        tmp_path,
        experiment={"name": "x", "notes": "y", "seed": 7},
        training={"ema": {}, "compile": False, "clip_grad_norm": 2.0},
        model={"name": "swin_tiny", "drop_path": 0.3},
        optimizer={"name": "sgd", "lr": 0.5, "momentum": 0.8},
        augmentation={"mixup": 0.8},
        logging={"every_steps": 3},
        checkpoint={"keep": 5},
    )
    given = {
        "experiment.seed": 7,
        "training.clip_grad_norm": 2.0,
        "model.drop_path": 0.3,
        "optimizer.name": "sgd",
        "optimizer.momentum": 0.8,
        "augmentation.mixup": 0.8,
    }
    assert given.items() <= shown.items()
    assert "training.ema.decay" in shown, "what is turned on is shown with its defaults"
    assert not {"experiment.name", "experiment.notes", "logging.every_steps", "checkpoint.keep"} & set(shown)
    assert "training.compile" not in shown


def test_what_is_swept_is_shown_of_each_run_also_at_its_default(tmp_path: Path) -> None:
    tags = ["mine", "sweep", "loss.label_smoothing=0.0", "no.such=1"]
    assert settings(tmp_path, experiment={"tags": tags})["loss.label_smoothing"] == 0.0
    assert "loss.label_smoothing" not in settings(tmp_path)


def test_lists_are_text_and_parts_of_models_are_found_in_any_section() -> None:
    config = {"detection": {"backbone": "swin", "neck": "fpn"}, "data": {"csv": None}, "model": "odd"}
    assert common_settings(config) == {"detection.backbone": "swin", "detection.neck": "fpn"}
