"""Default boxes: their number, order, places and shapes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from detection.model.priors import cell_boxes, make_priors
from detection.model.sections import PriorsConfig

SSD300 = [(side, side) for side in (38, 19, 10, 5, 3, 1)]


def approx(boxes: list[tuple[float, float]]) -> list[Any]:
    return [pytest.approx(box) for box in boxes]


def test_the_classic_layout_has_8732() -> None:
    config = PriorsConfig()
    assert config.per_cell == (4, 6, 6, 6, 4, 4)
    priors = make_priors(config, SSD300, (300, 300))
    assert priors.shape == (8732, 4) and priors.dtype == torch.float32
    assert priors.min() > 0 and priors.max() <= 1


def test_boxes_of_a_cell_by_hand() -> None:
    root, between = math.sqrt(2), math.sqrt(0.1 * 0.2)
    expected = [(0.1, 0.1), (between, between), (0.1 * root, 0.1 / root), (0.1 / root, 0.1 * root)]
    assert cell_boxes(PriorsConfig(), 0, (300, 300)) == approx(expected)
    expected = [(0.9, 0.9), (math.sqrt(0.9), math.sqrt(0.9)), (1.0, 0.9 / root), (0.9 / root, 1.0)]
    assert cell_boxes(PriorsConfig(), 5, (300, 300)) == approx(expected)
    shapes = cell_boxes(PriorsConfig(clip=False), 2, (300, 300))
    assert [w / h for w, h in shapes] == pytest.approx([1, 1, 2, 1 / 2, 3, 1 / 3])
    assert [w * h for w, h in shapes] == pytest.approx([0.375**2, 0.375 * 0.55, *[0.375**2] * 4])
    assert cell_boxes(PriorsConfig(clip=False), 5, (300, 300))[2] == pytest.approx((0.9 * root, 0.9 / root))


def test_places_by_hand() -> None:
    priors = make_priors(PriorsConfig(), [(3, 4), *SSD300[1:]], (300, 400))
    assert priors[: 4 * 12, :2].view(3, 4, 4, 2)[2, 1].tolist() == [[0.375, pytest.approx(5 / 6)]] * 4
    sides = priors[: 4 * 12, 2:].view(12, 4, 2)
    assert (sides == sides[0]).all()
    second = priors[48 : 48 + 6 * 361].view(19, 19, 6, 4)
    assert second[0, 18, 0].tolist() == pytest.approx(
        [18.5 / 19, 0.5 / 19, 0.2 * math.sqrt(0.75), 0.2 / math.sqrt(0.75)]
    )
    assert priors[-4:, :2].tolist() == [[0.5, 0.5]] * 4


def test_squares_are_squares_in_any_image() -> None:
    height, width = 240, 540
    for index in range(6):
        boxes = cell_boxes(PriorsConfig(clip=False), index, (height, width))
        pixels = [(w * width, h * height) for w, h in boxes]
        assert [w / h for w, h in pixels[:4]] == pytest.approx([1, 1, 2, 1 / 2])
        assert pixels[0][0] == pytest.approx(PriorsConfig().scales[index] * 360)
    clipped = make_priors(PriorsConfig(), SSD300, (height, width))
    assert clipped[:, 2:].max() == 1


def test_square_images_have_torchvisions_boxes() -> None:
    config = PriorsConfig()
    theirs = DefaultBoxGenerator([list(map(int, r)) for r in config.ratios], scales=[*config.scales, 1.0])
    images = ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)])
    (corners,) = theirs(images, [torch.zeros(1, 1, *size) for size in SSD300])
    ours = make_priors(config, SSD300, (300, 300))
    expected = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], dim=1) / 300
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_scales_and_ratios_from_the_configuration() -> None:
    config = PriorsConfig(scales=(0.05, 0.1, 0.2, 0.4, 0.6, 0.8), scale_beyond=1.1, ratios=((), *[(1.5, 4.0)] * 5))
    assert config.per_cell == (2, 6, 6, 6, 6, 6)
    assert cell_boxes(config, 0, (64, 64)) == approx([(0.05, 0.05), (math.sqrt(0.005), math.sqrt(0.005))])
    assert cell_boxes(config, 5, (64, 64))[1] == pytest.approx((math.sqrt(0.88), math.sqrt(0.88)))
    assert len(make_priors(config, [(2, 2)] * 6, (64, 64))) == 4 * (2 + 5 * 6)
