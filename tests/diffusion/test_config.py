"""Configurations of diffusion runs: what is refused, under its key, and what follows from what is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from diffusion.process import objectives, times, weightings
from diffusion.process import schedules as process_schedules
from diffusion.process.sections import ScheduleConfig, TimesConfig, WeightingConfig
from diffusion.samplers import spacing
from diffusion.samplers.names import SAMPLERS
from diffusion.samplers.sections import SamplingConfig
from diffusion.sections import DiffusionSection
from engine.config.load import ConfigError
from tests.diffusion.small import config_of, loaded

IMAGES = {"source": "images", "root": "/nowhere", "image_size": 8}
LABELS = {**IMAGES, "source": "csv", "csv": "/nowhere.csv", "label_columns": ["a", "b"]}


@pytest.mark.parametrize(
    ("changes", "override", "said"),
    [
        ({}, "diffusion.sampling.sampler=dpmp", "diffusion.sampling.sampler: .*did you mean 'dpmpp'"),
        ({}, "diffusion.sampling.steps=0", r"diffusion.sampling.steps: must be a whole number >= 1"),
        ({}, "diffusion.objective=eps", "objective: eps says nothing .* cosine schedule; use v, x0, flow or edm"),
        ({}, "diffusion={objective: eps, schedule: {name: flow}}", "eps says nothing .* flow schedule"),
        (
            {},
            "diffusion={objective: eps, schedule: {name: linear, steps: 50, zero_terminal_snr: true}}",
            "eps says nothing .* linear schedule",
        ),
        ({}, "diffusion={schedule: {steps: 20}, sampling: {steps: 21}}", "sampling.steps: 21 is more than the 20"),
        ({}, "diffusion.schedule.zero_terminal_snr=true", "zero_terminal_snr: has an effect only with steps"),
        ({}, "diffusion={label_dropout: 0.0, sampling: {guidance: 2.0}}", "sampling.guidance: 2 needs a network"),
        ({}, "diffusion={conditioning: none, sampling: {guidance: 2.0}}", "sampling.guidance: 2 needs a network"),
        ({}, "diffusion={conditioning: none, label_dropout: 0.2}", "label_dropout: has an effect only with"),
        ({}, "diffusion.sampling.guidance_interval=[0.1, 2]", "guidance_interval: has an effect only with another"),
        ({}, "diffusion.sampling.guidance_interval=[2, 1]", "the smaller number comes first"),
        ({}, "diffusion.sampling={sampler: heun, eta: 0.5}", "sampling.eta: has an effect only with sampler: ddim"),
        ({}, "diffusion.sampling.clip_share=0.9", "clip_share: has an effect only with clip: dynamic"),
        ({}, "diffusion.sigma_data=0.3", "sigma_data: has an effect only with objective: edm or weighting.name: edm"),
        ({}, "diffusion.weighting={name: edm, gamma: 3}", "weighting.gamma: edm has no such key"),
        ({}, "data.image_size=2", "data.image_size: at the last of 2 stages nothing is left to merge of 2 pixels"),
        ({}, "data.image_size=1", "data.image_size: 1 does not fit the model: img_size"),
        ({}, "data.mean=[0.5, 0.5, 0.5]", "data.mean: has an effect only with"),
        ({}, "data.pad_fill=edge", "data.pad_fill: has an effect only with data.resize: pad"),
        ({}, "model.num_heads=[5, 2]", "a stage of 12 channels cannot be split over 5 heads"),
        ({}, "model={name: swin_unet, depths: [1]}", "also needs embed_dim and num_heads"),
        ({}, "finetune.weights=timm", "finetune.weights: timm is for timm's models"),
        ({}, "evaluation.weights=second_ema", "second_ema is for a trained model"),
        ({"data": IMAGES}, "diffusion.conditioning=class", "data.source images has no classes; use none"),
        ({"data": IMAGES}, "diffusion.sampling.guidance=2", "images has no classes, so nothing guides; use 1"),
        ({"data": IMAGES}, "diffusion.label_dropout=0.2", "label_dropout: has an effect only with one class an image"),
        ({"data": IMAGES}, "data.sampling=balanced", "data.sampling: has an effect only with images with classes"),
        ({"data": LABELS}, "diffusion.conditioning=class", "csv may have several labels an image; use none"),
    ],
)
def test_what_contradicts_itself_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], override: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        loaded(tmp_path, override, **changes)


def test_the_class_is_told_where_images_have_one() -> None:
    assert config_of().tells_class
    assert not config_of(diffusion={"conditioning": "none"}).tells_class
    assert not config_of(data=IMAGES).tells_class and not config_of(data=LABELS).tells_class


def test_names_in_the_configuration_are_those_of_what_is_built() -> None:
    def names(union: Any) -> set[str]:
        return {
            name for kind in get_args(get_args(union)[0]) for name in get_args(kind.model_fields["name"].annotation)
        }

    assert names(ScheduleConfig) == set(get_args(process_schedules.Name))
    assert names(WeightingConfig) == set(get_args(weightings.Name))
    assert names(TimesConfig) == set(get_args(times.Name))
    assert set(get_args(DiffusionSection.model_fields["objective"].annotation)) == set(get_args(objectives.Name))
    assert set(get_args(SamplingConfig.model_fields["sampler"].annotation)) == set(SAMPLERS)
    assert set(get_args(SamplingConfig.model_fields["spacing"].annotation)) == set(get_args(spacing.Name))
