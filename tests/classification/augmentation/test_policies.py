"""Policies on arrays beside timm's and torchvision's on Pillow's images, for the same random numbers."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment as timm_policies
from torchvision.transforms import v2

from classification.augmentation.policies import KERNELS, policy_steps
from classification.augmentation.sections import AugmentationConfig
from classification.augmentation.transforms import TrainTransform
from engine.images.lazy_image import LazyImage
from engine.images.preprocessing import Preprocessing
from engine.seed import derive, sample_randomness
from tests.photograph import photograph

READY = Preprocessing(160, 224, "squash", 1.0, "bilinear", (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
SETTINGS = {
    "translate_const": int(0.45 * 160),
    "img_mean": READY.fill,
    "interpolation": Image.Resampling.BILINEAR,
}


def policy(**keys: Any) -> Callable[..., Any]:
    return policy_steps(READY, AugmentationConfig.model_validate(keys))[0]


def differences(ours: Callable[..., Any], theirs: Callable[..., Any], count: int) -> list[float]:
    """Mean difference of each image, after which both have drawn equally often from each generator."""
    off = []
    for seed in range(count):
        ends = []
        for apply, image in ((ours, photograph()), (theirs, Image.fromarray(photograph()))):
            with sample_randomness(derive(seed)):
                found = np.asarray(apply(image)).astype(int)
                ends.append((found, random.random(), float(np.random.random()), float(torch.rand(()))))
        (our, *our_end), (their, *their_end) = ends
        assert our_end == their_end, "as many draws"
        off.append(float(np.abs(our - their).mean()))
    return off


@pytest.mark.parametrize(
    "text",
    ["rand-m9-mstd0.5-inc1", "rand-m7-n3-tweights", "rand-m5-n4-p1-inc0", "rand-m9-t3a", "rand-m9-mmax20"],
)
def test_randaugment_is_timms(text: str) -> None:
    off = differences(policy(randaugment=text), timm_policies.rand_augment_transform(text, dict(SETTINGS)), 60)
    assert np.mean(off) < 1.0, off


@pytest.mark.parametrize("text", ["original-mstd0.5", "v0", "v0r", "originalr", "3a"])
def test_autoaugment_is_timms(text: str) -> None:
    off = differences(policy(autoaugment=text), timm_policies.auto_augment_transform(text, dict(SETTINGS)), 60)
    assert np.mean(off) < 1.0, off


@pytest.mark.parametrize("text", ["augmix-m3-w3", "augmix-m5-w4-d2-b1"])
def test_augmix_is_timms(text: str) -> None:
    off = differences(policy(augmix=text), timm_policies.augment_and_mix_transform(text, dict(SETTINGS)), 20)
    assert np.mean(off) < 1.0, off


def test_trivialaugment_is_torchvisions() -> None:
    theirs = v2.TrivialAugmentWide(31, v2.InterpolationMode.BILINEAR, list(READY.fill))
    off = differences(policy(trivialaugment=True), theirs, 120)
    assert np.mean(off) < 1.0 and max(off) < 3.0, off


@pytest.mark.parametrize(
    ("keys", "theirs"),
    [
        ({"color_jitter": {"hue": 0.1}}, v2.ColorJitter(0.4, 0.4, 0.4, 0.1)),
        ({"color_jitter": {"brightness": 0, "contrast": 2}}, v2.ColorJitter(0, 2.0, 0.4)),
        ({"rotation": 40}, v2.RandomRotation(40, v2.InterpolationMode.BILINEAR, fill=list(READY.fill))),
        (
            {"affine": {"degrees": 9, "shear": 4}},
            v2.RandomAffine(9, (0.1, 0.1), (0.9, 1.1), 4, v2.InterpolationMode.BILINEAR, list(READY.fill)),
        ),
        ({"sharpness": {"factor": 3, "probability": 0.6}}, v2.RandomAdjustSharpness(3, 0.6)),
        ({"blur": {"sigma": (0.1, 1.0)}}, v2.RandomApply([v2.GaussianBlur(7, (0.1, 1.0))], 0.5)),
        ({"shift": 4}, v2.RandomCrop((160, 224), padding=4)),
        ({"horizontal_flip": 0.5}, v2.RandomHorizontalFlip(0.5)),
        ({"vertical_flip": 0.5}, v2.RandomVerticalFlip(0.5)),
    ],
)
def test_other_changes_are_torchvisions(keys: dict[str, Any], theirs: Callable[..., Any]) -> None:
    given = {"random_resized_crop": None, "horizontal_flip": 0.0, **keys}
    transform = TrainTransform(READY, AugmentationConfig.model_validate(given))
    for seed in map(derive, range(20)):
        found = transform(LazyImage.of(photograph()), seed).permute(1, 2, 0).numpy().astype(int)
        with sample_randomness(seed):
            expected = np.asarray(theirs(Image.fromarray(photograph())))
        assert np.abs(found - expected).mean() < 1.0, seed


def test_each_operation_of_timm_has_a_kernel() -> None:
    assert KERNELS.keys() == timm_policies.NAME_TO_OP.keys()


@pytest.mark.parametrize(
    "keys", [{"randaugment": "rand-m9"}, {"autoaugment": "3a"}, {"augmix": "augmix"}, {"trivialaugment": True}]
)
def test_policies_can_be_sent_to_workers_that_are_spawned(keys: dict[str, Any]) -> None:
    transform = TrainTransform(READY, AugmentationConfig.model_validate({"color_jitter": {}, **keys}))
    again = pickle.loads(pickle.dumps(transform))
    assert torch.equal(again(LazyImage.of(photograph()), 5), transform(LazyImage.of(photograph()), 5))
