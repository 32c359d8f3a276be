"""The shipped model configurations: published sizes, stages to unfreeze, and a step of training each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from classification.config import ClassificationConfig
from classification.model.build import build_model
from classification.spec import SPEC
from engine.commands.build import build_trainer
from engine.config.load import load_config
from engine.config.training import FinetuneConfig
from engine.datasets.dataset import preprocessing_of
from engine.errors import UserError
from engine.model.freezing import Freezing
from engine.model.stages import stages
from tests.engine.toy import SINGLE

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "classification"
MODELS = sorted((CONFIGS / "models").glob("*.yaml"))
PUBLISHED = {
    "convnext_tiny": 28_589_128,
    "efficientnet_b0": 5_288_548,
    "inception_v3": 23_834_568,
    "mobilenetv3_large": 5_483_032,
    "regnety_400mf": 4_344_144,
    "resnet50": 25_557_032,
    "resnext101_32x8d": 88_791_336,
    "swin_base": 87_768_224,
    "swin_small": 49_606_258,
    "swin_tiny": 28_288_354,
    "vit_base_patch16": 86_567_656,
}
"""Parameters with 1,000 classes, as torchvision's documentation and the papers' code have them."""
SMALL = ("mobilenetv3_large", "regnety_400mf", "efficientnet_b0")


def configured(name: str, *overrides: str) -> ClassificationConfig:
    return load_config(ClassificationConfig, CONFIGS / f"{name}.yaml", ["finetune.weights=null", *overrides])


def on_meta(config: ClassificationConfig, num_classes: int = 1000) -> nn.Module:
    """The model without memory for its weights."""
    size = config.data.image_size
    with torch.device("meta"):
        return build_model(config.model, config.finetune, num_classes, (size, size) if isinstance(size, int) else size)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_every_model_of_the_list_has_a_configuration() -> None:
    assert [path.stem for path in MODELS] == sorted(PUBLISHED)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_model_is_the_published_one_and_its_recipe_fits_it(path: Path) -> None:
    config = load_config(ClassificationConfig, path)
    assert config.experiment.name == path.stem
    assert (config.finetune.weights == "timm") == (config.model.timm_name is not None)
    assert config.finetune.weights is not None
    head = path.read_text().split("\nbase:")[0]
    assert f"--config configs/classification/models/{path.name}" in head
    assert "$schema=../../schema/classification.json" in head
    model = on_meta(configured(f"models/{path.stem}"))
    assert parameters(model) == PUBLISHED[path.stem]
    assert f"{PUBLISHED[path.stem] / 1e6:.1f} million parameters" in head
    assert preprocessing_of(config.data, config.model.timm_name).height == (299 if path.stem == "inception_v3" else 224)
    freezing = Freezing(model, config.finetune, 100)
    assert freezing.trained == ["head"]
    assert freezing.advance(100) and all(parameter.requires_grad for parameter in model.parameters())


def test_the_progressive_recipe_unfreezes_swin_stage_by_stage() -> None:
    config = configured("swin_base_progressive")
    model, trained = on_meta(config, 30), []
    freezing = Freezing(model, config.finetune, 100)
    for epoch in range(config.training.epochs or 0):
        while freezing.advance(100 * epoch):
            pass
        trained.append(freezing.trained)
    assert trained[0] == trained[2] == ["head"]
    assert trained[3] == trained[5] == ["stage_4", "head"]
    assert trained[6] == trained[9] == ["stage_3", "stage_4", "head"]
    assert trained[10] == ["stem", "stage_1", "stage_2", "stage_3", "stage_4", "head"]
    assert (config.training.precision, config.data.oversample) == ("bf16", 0.5)
    assert config.evaluation.early_stopping is not None


def test_resnext_with_a_head_of_its_own_stays_within_its_budget() -> None:
    config = configured("resnext101_head512")
    model = on_meta(config)
    assert isinstance(model.get_classifier(), nn.Module)  # type: ignore[operator]
    layers = [type(layer).__name__ for layer in model.fc.children()]  # type: ignore[union-attr]
    assert layers == ["Dropout", "Linear", "ReLU", "BatchNorm1d", "Dropout", "Linear"]
    backbone, hidden = 88_791_336 - 2048 * 1000 - 1000, 2048 * 512 + 512 + 2 * 512
    assert parameters(model) == backbone + hidden + 512 * 1000 + 1000 < 100_000_000
    schedule, stopping = config.schedule, config.evaluation.early_stopping
    assert (schedule.name, schedule.plateau.factor, schedule.plateau.patience) == ("plateau", 0.2, 3)
    assert stopping is not None and stopping.patience == 10
    assert config.loss.label_smoothing == 0.1


def test_a_model_over_its_budget_is_refused_with_its_size() -> None:
    with pytest.raises(UserError) as caught:
        on_meta(configured("models/resnet50", "model.max_parameters=20000000"), 10)
    assert str(caught.value) == (
        "model.max_parameters: timm/resnet50.a1_in1k has 23,528,522 parameters with 10 classes, more than the "
        "20,000,000 allowed; choose a smaller model or raise the limit"
    )
    assert parameters(on_meta(configured("models/resnet50", "model.max_parameters=23528522"), 10)) == 23_528_522


def steps_of(name: str) -> None:
    """Two steps on the digits, of the head and then of everything, by the model's own recipe."""
    side = 96 if name == "inception_v3" else 64
    config = configured(
        f"models/{name}",
        f"data={{source: digits, image_size: {side}, workers: 0}}",
        "training={steps: 2, global_batch_size: 4, precision: fp32}",
        "finetune.unfreeze={0: head, 0.003: all}",
        "distributed.device=cpu",
    )
    trainer = build_trainer(SPEC, config, SINGLE)
    model, batches = trainer.task.model, trainer.batches()
    parts = stages(model)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    changed = []
    for _ in range(2):
        trainer.train_step(batches)
        changed.append({n for n, p in model.named_parameters() if not torch.equal(p, before[n])})
    assert changed[0] == before.keys() & set(parts["head"])
    assert all(changed[1].intersection(keys) for keys in parts.values())
    trainer.settle()
    assert trainer.state.skipped == 0


@pytest.mark.parametrize("name", SMALL)
def test_small_models_train(name: str) -> None:
    steps_of(name)


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(set(PUBLISHED) - set(SMALL)))
def test_all_models_train(name: str) -> None:
    steps_of(name)


def test_finetuning_needs_no_schedule() -> None:
    assert Freezing(nn.Linear(2, 2), FinetuneConfig(), 10).trained == []
