"""Crops are those that torchvision draws."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2

from engine.augmentation.draws import draw_crop


@pytest.mark.parametrize("size", [(90, 60), (5, 400), (400, 5), (3, 3)])
@pytest.mark.parametrize("ratio", [(0.75, 4 / 3), (3.0, 5.0)])
def test_a_crop_is_torchvisions(size: tuple[int, int], ratio: tuple[float, float]) -> None:
    theirs = v2.RandomResizedCrop((10, 10), (0.08, 1.0), ratio)
    for seed in range(30):
        torch.manual_seed(seed)
        left, top, right, bottom = draw_crop(*size, (0.08, 1.0), ratio)
        after = torch.rand(())
        torch.manual_seed(seed)
        expected = theirs.make_params([torch.zeros(3, size[1], size[0])])
        assert (left, top, right - left, bottom - top) == tuple(expected[k] for k in ("left", "top", "width", "height"))
        assert torch.equal(torch.rand(()), after)


def test_a_crop_of_a_strip_has_a_pixel() -> None:
    for size in ((1, 5000), (5000, 1)):
        left, top, right, bottom = draw_crop(*size, (0.08, 1.0), (0.1, 0.3))
        assert right > left and bottom > top
