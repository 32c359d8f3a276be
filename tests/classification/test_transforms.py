from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from classification.augmentation_config import AugmentationConfig, RandAugmentConfig
from classification.preprocessing import Preprocessing
from classification.transforms import EvalTransform, TrainTransform
from engine.seed import derive

NONE = {"random_resized_crop": None, "horizontal_flip": 0.0}


def preprocessing(height=32, width=32, **keys) -> Preprocessing:
    values = {"resize": "crop", "crop_pct": 1.0, "interpolation": "bicubic"}
    return Preprocessing(height, width, **{**values, **keys}, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))


def photo(width=90, height=60) -> Image.Image:
    """Smooth colours, different everywhere."""
    y, x = np.mgrid[:height, :width]
    channels = [255 * x / width, 255 * y / height, 127 + 127 * np.sin(x / 7 + y / 11)]
    return Image.fromarray(np.stack(channels, 2).astype(np.uint8))


def train(picture=None, seed=0, size=32, **augmentation) -> torch.Tensor:
    transform = TrainTransform(preprocessing(size, size), AugmentationConfig(**augmentation))
    return transform(picture or photo(), derive(seed))


ALL = {
    "random_erasing": {"probability": 1.0},
    "vertical_flip": 0.5,
    "color_jitter": {"hue": 0.1},
    "shift": 3,
}


def augmentation(**keys) -> AugmentationConfig:
    return AugmentationConfig.model_validate(keys)


@pytest.mark.parametrize(
    "policy",
    [
        {},
        {"randaugment": "rand-m9-mstd0.5-inc1"},
        {"randaugment": "rand-m7-n3-tweights"},
        {"randaugment": RandAugmentConfig()},
        {"autoaugment": "original-mstd0.5"},
        {"autoaugment": "3a"},
        {"trivialaugment": True},
    ],
)
@pytest.mark.parametrize("interpolation", ["bicubic", "lanczos"])
def test_augmentation_follows_from_the_seed_alone(policy, interpolation):
    transform = TrainTransform(preprocessing(interpolation=interpolation), augmentation(**ALL, **policy))
    first = [transform(photo(), seed) for seed in range(12)]
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)
    again = [transform(photo(), seed) for seed in reversed(range(12))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({picture.numpy().tobytes() for picture in first}) == 12
    assert all(picture.dtype == torch.uint8 and picture.shape == (3, 32, 32) for picture in first)
    assert all(picture.is_contiguous() for picture in first)


def test_augmentation_leaves_the_global_generators_alone():
    def draws():
        return random.random(), float(np.random.random()), float(torch.rand(()))

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draws()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    train(randaugment="rand-m9-mstd0.5-inc1", **ALL)
    assert draws() == expected


def test_without_augmentation_training_sees_what_evaluation_sees():
    for size in ((32, 32), (20, 44)):
        transform = TrainTransform(preprocessing(*size), AugmentationConfig(**NONE))
        assert torch.equal(transform(photo(), 3), EvalTransform(preprocessing(*size))(photo()))


@pytest.mark.parametrize("flip", ["horizontal_flip", "vertical_flip"])
def test_flips(flip):
    upright = train(**NONE)
    found = train(**{**NONE, flip: 1.0})
    assert torch.equal(found, upright.flip(2 if flip == "horizontal_flip" else 1))
    share = np.mean([not torch.equal(train(seed=k, **{**NONE, flip: 0.3}), upright) for k in range(300)])
    assert share == pytest.approx(0.3, abs=0.08)


def test_shifts_move_the_picture_by_up_to_so_many_pixels_and_fill_with_black():
    upright = train(**NONE).long() + 1  # so that black is no colour of the picture
    picture = Image.fromarray((upright.permute(1, 2, 0)).clamp(max=255).to(torch.uint8).numpy())
    values = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    padded = torch.zeros(3, 36, 36, dtype=torch.uint8)
    padded[:, 2:34, 2:34] = values
    windows = {padded[:, y : y + 32, x : x + 32].numpy().tobytes(): (y, x) for y in range(5) for x in range(5)}
    found = {windows[train(picture, seed=k, **NONE, shift=2).numpy().tobytes()] for k in range(200)}
    assert len(found) == 25


def test_random_resized_crop_keeps_to_its_scale_and_ratio():
    transform = TrainTransform(
        preprocessing(64, 64),
        augmentation(horizontal_flip=0.0, random_resized_crop={"scale": (0.25, 0.25), "ratio": (1.0, 1.0)}),
    )
    for seed in range(20):
        red = transform(photo(128, 128), seed)[0].float()
        span = red[:, -1].mean() - red[:, 0].mean()  # red grows from left to right by 255 over the whole picture
        assert float(span) == pytest.approx(127, abs=6)


@pytest.mark.parametrize("size", [(37, 90), (90, 37), (64, 64), (500, 20), (7, 9)])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
def test_evaluation_equals_torchvisions_resize_and_crop(size, crop_pct):
    expected = v2.Compose(
        [v2.Resize(int(32 / crop_pct), v2.InterpolationMode.BICUBIC), v2.CenterCrop(32), v2.PILToTensor()]
    )
    assert torch.equal(EvalTransform(preprocessing(crop_pct=crop_pct))(photo(*size)), expected(photo(*size)))


@pytest.mark.parametrize("target", [(24, 48), (48, 24)])
@pytest.mark.parametrize("size", [(37, 90), (90, 37), (5, 5)])
def test_evaluation_at_any_shape_fills_it(target, size):
    white = Image.new("RGB", size, "white")
    for resize in ("crop", "squash"):
        found = EvalTransform(preprocessing(*target, resize=resize, crop_pct=0.9))(white)
        assert found.shape == (3, *target)
        assert int(found.min()) == 255, "nothing is padded"


def test_squash_keeps_all_of_the_picture():
    found = EvalTransform(preprocessing(resize="squash", crop_pct=0.5))(photo())
    expected = np.asarray(photo().resize((32, 32), Image.Resampling.BICUBIC))
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)


def test_erasing_happens_only_where_asked():
    plain = [train(seed=k, **NONE) for k in range(40)]
    found = [train(seed=k, **NONE, random_erasing={"probability": 0.5}) for k in range(40)]
    untouched = sum(torch.equal(a, b) for a, b in zip(plain, found, strict=True))
    assert 8 < untouched < 32


def test_the_interpolation_asked_for_is_used():
    found = {name: EvalTransform(preprocessing(interpolation=name))(photo()) for name in ("nearest", "bilinear")}
    for name, tensor in found.items():
        resized = photo().resize((48, 32), Image.Resampling[name.upper()]).crop((8, 0, 40, 32))
        assert np.array_equal(tensor.permute(1, 2, 0).numpy(), np.asarray(resized))
