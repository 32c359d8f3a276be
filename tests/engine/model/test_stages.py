"""Names for the parts of real models."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from engine.errors import UserError
from engine.model.stages import classifier_paths, stages
from swin import swin_tiny
from tests.engine.staged import STAGES, Staged, stage_of


def test_every_parameter_and_buffer_is_in_the_stage_it_reads_like() -> None:
    model = Staged()
    found = stages(model)
    assert tuple(found) == STAGES
    assert [key for keys in found.values() for key in keys] == list(model.state_dict())
    assert all(stage_of(key) == name for name, keys in found.items() for key in keys)


@pytest.mark.parametrize(
    ("name", "last", "head"),
    [
        ("resnet50", 4, "fc."),
        ("efficientnet_b0", 7, "classifier."),
        ("vit_base_patch16_224", 12, "head."),
        ("convnext_tiny", 4, "head."),
        ("inception_v3", 12, "fc."),
        ("deit_tiny_distilled_patch16_224", 12, "head"),
    ],
)
def test_stages_of_timms_models(name: str, last: int, head: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    found = stages(model)
    assert list(found) == ["stem", *(f"stage_{i}" for i in range(1, last + 1)), "head"]
    assert sorted(key for keys in found.values() for key in keys) == sorted(model.state_dict())
    assert found["head"] and all(key.startswith(head) for key in found["head"])
    assert all(found.values())


def test_stages_of_our_swin_are_the_papers() -> None:
    with torch.device("meta"):
        found = stages(swin_tiny())  # type: ignore[arg-type]
    assert list(found) == ["stem", "stage_1", "stage_2", "stage_3", "stage_4", "head"]
    for i in range(4):
        assert all(key.startswith(f"layers.{i}.") for key in found[f"stage_{i + 1}"])
    assert found["head"] == ["norm.weight", "norm.bias", "head.weight", "head.bias"]


def test_a_layer_without_weights_stands_with_the_one_before_it() -> None:
    model = Staged()
    model.stages[0][1] = nn.BatchNorm1d(8, affine=False)
    assert "stages.0.1.running_mean" in stages(model)["stage_1"]


def test_classifiers_are_found_where_they_are() -> None:
    with torch.device("meta"):
        assert classifier_paths(timm.create_model("convnext_tiny")) == ["head.fc"]
        assert classifier_paths(timm.create_model("deit_tiny_distilled_patch16_224")) == ["head", "head_dist"]
    assert classifier_paths(nn.Linear(2, 2)) == []


def test_a_model_that_does_not_say_is_refused() -> None:
    with pytest.raises(UserError, match="finetune: Linear does not say what its stages are"):
        stages(nn.Linear(2, 2))
