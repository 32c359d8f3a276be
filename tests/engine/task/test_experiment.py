"""Weights of a run's checkpoint, into the model of its configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from engine.config.run import RunConfig
from engine.errors import UserError
from engine.run_folder.paths import RunDir
from engine.task.experiment import Experiment, open_experiment


def experiment(weights: str, **saved) -> Experiment[RunConfig]:
    config = RunConfig.model_construct(evaluation=RunConfig().evaluation.model_copy(update={"weights": weights}))
    return Experiment(RunDir(Path("e")), config, Path("best.pt"), saved)


@pytest.mark.parametrize(("weights", "wanted"), [("auto", 2.0), ("ema", 2.0), ("model", 1.0)])
def test_the_moving_average_is_loaded_unless_the_model_is_asked_for(weights: str, wanted: float) -> None:
    model = nn.Linear(1, 1, bias=False)
    states = {"model": {"weight": torch.full((1, 1), 1.0)}, "ema": {"weight": torch.full((1, 1), 2.0)}}
    experiment(weights, **states).load_into(model)
    assert model.weight.item() == wanted
    experiment("auto", **{**states, "ema": None}).load_into(model)
    assert model.weight.item() == 1.0


def test_the_second_average_is_loaded_where_it_is_asked_for() -> None:
    model = nn.Linear(1, 1, bias=False)
    states = {name: {"weight": torch.full((1, 1), n)} for n, name in enumerate(("model", "ema", "second_ema"), 1)}
    experiment("second_ema", **states).load_into(model)
    assert model.weight.item() == 3.0
    del states["second_ema"]
    with pytest.raises(UserError, match=r"evaluation\.weights: best\.pt has no second_ema; use ema or model"):
        experiment("second_ema", **states).load_into(model)


def test_a_model_of_another_shape_is_a_short_message() -> None:
    state = nn.Sequential(*(nn.Linear(2, 2) for _ in range(30))).state_dict()
    model = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(UserError) as caught:
        experiment("auto", model=state, ema=None).load_into(model)
    head, surplus, misshapen = str(caught.value).splitlines()
    assert head == "best.pt does not fit the configured model: 1 of its 2 tensors fit"
    assert surplus.startswith("  58 surplus: 1.weight (2, 2), ") and surplus.endswith(" and 54 more")
    assert misshapen == "  1 of another shape: 0.weight (2, 2) instead of (2, 3)"


def test_a_checkpoint_is_named_by_its_place_in_the_experiment_or_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = RunDir(tmp_path / "experiment_0001")
    folder.checkpoints.mkdir(parents=True)
    folder.config.write_text("{}\n")
    for name in ("step_00000003.pt", "last.pt"):
        (folder.checkpoints / name).touch()
    for which, file in [
        ("step_00000003.pt", "step_00000003.pt"),
        ("experiment_0001/checkpoints/step_00000003.pt", "step_00000003.pt"),
        ("best", "last.pt"),
    ]:
        with pytest.raises(UserError, match=rf"{file}"):  # it is empty
            open_experiment(folder.path, which, RunConfig)
    assert caplog.text.count("experiment_0001 has no best checkpoint, so its last is taken") == 1
    with pytest.raises(UserError, match=r"--checkpoint: no file /dev/zero; checkpoints in the experiment: "):
        open_experiment(folder.path, "/dev/zero", RunConfig)
    with pytest.raises(UserError, match=r"no file step_4.pt; checkpoints in the experiment: last.pt, step_00000003.pt"):
        open_experiment(folder.path, "step_4.pt", RunConfig)
