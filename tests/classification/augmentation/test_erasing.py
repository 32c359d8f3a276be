from __future__ import annotations

import numpy as np
import pytest
import torch

from classification.augmentation.erasing import erase
from classification.augmentation.sections import RandomErasingConfig
from engine.seed import generator

MEAN, STD = (0.5, 0.4, 0.6), (0.1, 0.2, 0.05)
SENTINEL = 1


def erased(config: RandomErasingConfig, seed: int, size=(40, 60)) -> torch.Tensor:
    return erase(torch.full((3, *size), SENTINEL, dtype=torch.uint8), config, MEAN, STD, generator(seed))


def changed(image: torch.Tensor) -> np.ndarray:
    return (image != SENTINEL).any(0).numpy()


def test_one_rectangle_of_the_asked_area_and_aspect_inside_the_image():
    config = RandomErasingConfig(probability=1.0)
    shares, tops = [], set()
    for seed in range(300):
        mask = changed(erased(config, seed))
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.99, "a full rectangle"
        assert 0.25 < height / width < 4
        shares.append(height * width / mask.size)
        tops.add(int(rows[0]))
    assert 0.01 < min(shares) < 0.05
    assert 0.3 < max(shares) < 0.36
    assert len(tops) > 20


def test_probability_of_erasing():
    config = RandomErasingConfig(probability=0.25)
    share = np.mean([changed(erased(config, seed)).any() for seed in range(1000)])
    assert share == pytest.approx(0.25, abs=0.04)
    assert not any(changed(erased(RandomErasingConfig(probability=0.0), seed)).any() for seed in range(50))


def test_noise_has_the_data_sets_mean_and_deviation():
    config = RandomErasingConfig(probability=1.0, area=(0.3, 0.3))
    image = erased(config, 0, size=(300, 300))
    mask = changed(image)
    values = image[:, mask].double() / 255
    assert values.mean(1).tolist() == pytest.approx(MEAN, abs=0.01)
    assert values.std(1).tolist() == pytest.approx(STD, abs=0.01)


def test_equal_generators_erase_equally():
    config = RandomErasingConfig(probability=1.0, count=3)
    assert torch.equal(erased(config, 5), erased(config, 5))
    assert not torch.equal(erased(config, 5), erased(config, 6))


def test_several_rectangles_share_the_area():
    config = RandomErasingConfig(probability=1.0, area=(0.3, 0.3), count=4)
    shares = [changed(erased(config, seed, size=(100, 100))).mean() for seed in range(60)]
    assert max(shares) <= 0.31
    assert min(shares) < 0.28, "several rectangles overlap at times"


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 50)])
def test_tiny_images_are_never_written_outside(size):
    for seed in range(30):
        assert erased(RandomErasingConfig(probability=1.0), seed, size=size).shape == (3, *size)
