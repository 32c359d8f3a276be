"""The configuration with which a trained model is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from classification.config import ClassificationConfig
from engine.config.load import dump_config
from engine.config.run import RunConfig
from engine.config.training import FinetuneConfig
from engine.errors import UserError
from engine.run_folder.paths import RunDir
from engine.run_folder.used_config import used_config


@pytest.mark.parametrize("weights", ["timm", Path("/gone/weights.pth")])
def test_a_trained_model_needs_no_weights_to_start_from(tmp_path: Path, weights: str | Path) -> None:
    started = RunConfig(finetune=FinetuneConfig.model_validate({"weights": weights}))
    RunDir(tmp_path).config.write_text(dump_config(started))
    config, changes = used_config(tmp_path, RunConfig, ["evaluation.weights=model"])
    assert (config.finetune.weights, config.evaluation.weights) == (None, "model")
    assert changes == ("evaluation.weights=model",)
    with pytest.raises(UserError, match=r"finetune\.weights: cannot matter for a trained model"):
        used_config(tmp_path, RunConfig, ["finetune.weights=timm"])


@pytest.mark.parametrize("key", ["data.sampling=balanced", "data.oversample=0.5", "data.drop_last=false"])
def test_what_of_the_data_only_training_reads_is_refused(tmp_path: Path, key: str) -> None:
    run = {"model": {"name": "swin_tiny"}, "data": {"source": "digits"}}
    RunDir(tmp_path).config.write_text(dump_config(ClassificationConfig.model_validate(run)))
    assert used_config(tmp_path, ClassificationConfig, ["data.image_size=64"])[1] == ("data.image_size=64",)
    with pytest.raises(UserError, match=f"{key.partition('=')[0]}: cannot matter for a trained model"):
        used_config(tmp_path, ClassificationConfig, [key])
