"""Every shipped configuration is right, says what it is for, and the recipes are those that were published."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from classification.config import ClassificationConfig
from classification.model.build import build_model
from engine.config.load import load_config
from engine.training.optimizer import build_optimizer
from engine.training.schedule import Schedule

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "configs" / "classification").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_loads_and_explains_itself(path):
    config = load_config(ClassificationConfig, path)
    assert config.experiment.name == path.stem
    head = path.read_text().split("\nexperiment:")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert all(f"# {word}" in head for word in ("Run:", "Hardware:", "Expect:"))
    assert "$schema=../schema/classification.json" in head


def test_the_imagenet_recipe_of_swin_t():
    config = load_config(ClassificationConfig, ROOT / "configs/classification/swin_tiny_imagenet.yaml")
    augmentation, training = config.augmentation, config.training
    assert (augmentation.randaugment, augmentation.mixup, augmentation.cutmix) == ("rand-m9-mstd0.5-inc1", 0.8, 1.0)
    assert augmentation.random_erasing is not None and augmentation.random_erasing.probability == 0.25
    assert (training.epochs, training.global_batch_size, training.clip_grad_norm) == (300, 1024, 5.0)
    assert config.loss.label_smoothing == 0.1
    model = build_model(config.model, config.finetune, 1000, (224, 224))
    assert sum(p.numel() for p in model.parameters()) == 28_288_354
    assert model.config.drop_paths[-1][-1] == 0.2
    optimizer = build_optimizer(model, config.optimizer, config.finetune)
    assert type(optimizer) is torch.optim.AdamW
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        spared = parameter.ndim == 1 or name.endswith("relative_position_bias_table")
        assert decay[id(parameter)] == (0.0 if spared else 0.05), name
    schedule = Schedule(config.schedule, config.optimizer.lr, 1251, 300 * 1251)
    rates = [1e-3 * schedule.factor(step) for step in (0, 20 * 1251, 300 * 1251 - 1)]
    assert rates == pytest.approx([1e-6, 1e-3, 1e-5])


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_a_page_points_to_what_is_there(page):
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    missing = [link for link in links if not ((ROOT / page).parent / link).exists()]
    assert not missing
    for module in re.findall(r"python -m ([a-z_.]+)", text):
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file() or (
            ROOT / module.replace(".", "/") / "__main__.py"
        ).is_file(), module
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text(), target
    for config in re.findall(r"configs/[a-z_/0-9]+\.yaml", text):
        assert (ROOT / config).is_file(), config
    for template in re.findall(r"slurm/[a-z_]+\.sbatch", text):
        assert (ROOT / template).is_file(), template


@pytest.mark.parametrize("page", ["clusters.md", "first_gpu_job.md"])
def test_a_page_on_clusters_names_settings_and_options_that_there_are(page):
    text = (ROOT / "docs" / page).read_text()
    sections = "|".join(ClassificationConfig.model_fields)
    for section, key in re.findall(rf"\b({sections})\.([a-z_]+)", text):
        field = ClassificationConfig.model_fields[section]
        assert key in getattr(field.annotation, "model_fields", {key: ""}), f"{section}.{key}"
    for variable in re.findall(r"`(SWIN_[A-Z_]+)", text):
        assert variable in "".join(path.read_text() for path in (ROOT / "slurm").iterdir()), variable
