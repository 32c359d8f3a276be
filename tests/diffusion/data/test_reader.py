"""Images and their noise, as workers read them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from diffusion.data.reader import NoisyReader, PixelTransform, preprocessing_of
from diffusion.data.sections import AugmentationConfig
from engine.data.batch_plan import Draw
from engine.datasets.labelled import open_digits
from engine.images.lazy_image import LazyImage
from tests.diffusion.small import config_of


def reader(training: bool = True, stratified: int | None = None, channels: int = 1) -> NoisyReader:
    config = config_of(data={"image_size": 8, "channels": channels})
    transform = PixelTransform(preprocessing_of(config.data), channels, None)
    return NoisyReader(open_digits("val"), transform, 3, (channels, 8, 8), training, stratified)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_those_of_the_image(channels: int) -> None:
    sample = reader(channels=channels)[Draw(7, 0, 0)]
    expected = torch.from_numpy(np.array(open_digits("val").image(7)))
    assert sample["image"].shape == (channels, 8, 8) and sample["image"].dtype == torch.uint8
    assert all(torch.equal(plane, expected[..., 0]) for plane in sample["image"])
    assert sample["label"] == open_digits("val").labels[7]


def test_noise_of_training_follows_from_the_place_in_the_epoch_and_of_evaluation_from_the_image() -> None:
    training, evaluation = reader(), reader(training=False)
    first, again, later = training[Draw(7, 1, 5)], training[Draw(8, 1, 5)], training[Draw(7, 2, 5)]
    for name in ("noise", "time", "drop"):
        assert np.array_equal(first[name], again[name]) and not np.array_equal(first[name], later[name])
        assert np.array_equal(evaluation[Draw(7, 0, 0)][name], evaluation[Draw(7, 1, 5)][name])
        assert not np.array_equal(evaluation[Draw(7, 0, 0)][name], evaluation[Draw(8, 0, 0)][name])
    assert first["noise"].dtype == torch.float32 and first["noise"].shape == (1, 8, 8)


def test_times_of_a_global_batch_are_spread_evenly() -> None:
    times = sorted(reader(stratified=12)[Draw(0, 0, position)]["time"] for position in range(12, 24))
    assert np.diff(times) == pytest.approx(np.full(11, 1 / 12))


def test_a_worker_that_is_no_fork_reads_the_same() -> None:
    ours, theirs = reader(), pickle.loads(pickle.dumps(reader()))
    assert torch.equal(ours[Draw(3, 0, 9)]["noise"], theirs[Draw(3, 0, 9)]["noise"])


def test_flips_and_crops_follow_from_the_seed() -> None:
    preprocessing = preprocessing_of(config_of(data={"image_size": 8}).data)
    image = LazyImage.of(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    plain = PixelTransform(preprocessing, 3, None)(image, 0)
    flips = PixelTransform(preprocessing, 3, AugmentationConfig(horizontal_flip=1.0, vertical_flip=1.0))(image, 0)
    assert torch.equal(flips, plain.flip(1, 2))
    crop = PixelTransform(preprocessing, 3, AugmentationConfig.model_validate({"random_crop": {"scale": (0.5, 0.6)}}))
    assert torch.equal(crop(image, 1), crop(image, 1)) and not torch.equal(crop(image, 1), crop(image, 2))
    assert crop(image, 1).shape == (3, 8, 8)
