"""The crop around objects: what is kept, and what decides where it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.ops import box_iou
from torchvision.transforms import v2

from detection.augmentation.iou_crop import choose_part
from detection.augmentation.sections import AugmentationConfig, IoUCropConfig
from detection.augmentation.transforms import TrainTransform
from detection.data.sample import CROWD, Sample
from engine.images.lazy_image import LazyImage
from engine.seed import sample_randomness
from tests.detection.small import prepared

SIZE = (120, 160)
BOXES = torch.tensor([[10.0, 10.0, 60.0, 90.0], [70.0, 40.0, 150.0, 110.0], [100.0, 5.0, 120.0, 25.0]])


@pytest.mark.parametrize("least", [0.0, 0.3, 0.5])
def test_a_part_keeps_to_its_bounds_and_overlaps_an_object_enough(least):
    torch.manual_seed(0)
    config = IoUCropConfig(overlaps=[least], scale=(0.4, 0.9), ratio=(0.6, 1.8))
    found = [choose_part(BOXES, SIZE, config) for _ in range(200)]
    parts = [each for each in found if each is not None]
    assert 50 < len(parts) < 150  # the whole image is drawn as often as the one overlap
    for (left, top, right, bottom), inside in parts:
        assert 0 <= left < right <= 160 and 0 <= top < bottom <= 120
        assert 63 <= right - left <= 144 and 47 <= bottom - top <= 108
        assert 0.6 <= (right - left) / (bottom - top) <= 1.8
        centres = (BOXES[:, :2] + BOXES[:, 2:]) / 2
        expected = [left < x < right and top < y < bottom for x, y in centres.tolist()]
        assert inside.tolist() == expected and any(expected)
        assert box_iou(torch.tensor([[left, top, right, bottom]]).float(), BOXES[inside]).max() >= least


def test_parts_are_drawn_as_torchvision_draws_them():
    config, draws = IoUCropConfig(), 1500
    theirs = v2.RandomIoUCrop(*config.scale, *config.ratio, [*config.overlaps, 1.0], config.trials)
    boxes = tv_tensors.BoundingBoxes(BOXES, format="XYXY", canvas_size=SIZE)
    torch.manual_seed(0)
    ours = [choose_part(BOXES, SIZE, config) for _ in range(draws)]
    expected = [theirs.make_params([boxes]) for _ in range(draws // 3)]
    whole = [sum(each is None for each in ours) / draws, sum(not each for each in expected) / len(expected)]
    assert abs(whole[0] - whole[1]) < 0.06
    found = torch.tensor([part for part, _ in filter(None, ours)]).float()
    wanted = torch.tensor(
        [[p["left"], p["top"], p["left"] + p["width"], p["top"] + p["height"]] for p in expected if p]
    )
    assert (found.mean(dim=0) - wanted.float().mean(dim=0)).abs().max() < 5
    assert (found.std(dim=0) - wanted.float().std(dim=0)).abs().max() < 5


def test_what_is_impossible_leaves_the_image_whole():
    small = torch.tensor([[10.0, 10.0, 12.0, 12.0]])
    torch.manual_seed(0)
    assert all(choose_part(small, SIZE, IoUCropConfig(overlaps=[0.9])) is None for _ in range(5))
    assert choose_part(torch.zeros(0, 4), SIZE, IoUCropConfig(overlaps=[0.0])) is None
    tiny = IoUCropConfig(overlaps=[0.0], scale=(0.1, 0.4))
    assert choose_part(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), (2, 2), tiny) is None  # every part is without area


CONFIG = IoUCropConfig(overlaps=[0.0], scale=(0.4, 0.7))


def image(region: tuple[int, int, int, int], size: tuple[int, int] = (80, 60)) -> Image.Image:
    """Black, the region white."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    left, top, right, bottom = region
    pixels[top:bottom, left:right] = 255
    return Image.fromarray(pixels)


def cropped(boxes: list, labels: list[int], seed: int, size: tuple[int, int] = (80, 60)) -> dict:
    regions = [box for box, label in zip(boxes, labels, strict=True) if label == CROWD] or [(0, 0, 0, 0)]
    given = AugmentationConfig(photometric=None, zoom_out=None, iou_crop=CONFIG)
    transform = TrainTransform(prepared((size[1], size[0])), given)
    pixels = image(regions[0], size)
    sample = Sample(LazyImage.of(pixels), torch.tensor(boxes).float().view(-1, 4), torch.tensor(labels))
    with sample_randomness(seed):
        view, kept, left_over = transform._drawn(sample)
    assert view.frame == size
    left, top, right, bottom = view.box
    moved = (kept - torch.tensor([left, top] * 2)).clamp(min=0)
    moved = moved.minimum(torch.tensor([right - left, bottom - top] * 2))
    return {"image": pixels.crop(view.box), "boxes": moved, "labels": left_over}


def test_what_is_left_of_a_region_is_kept_wherever_its_centre_is() -> None:
    partly = 0
    for seed in range(60):
        found = cropped([(5, 8, 25, 30), (20, 0, 80, 60)], [3, CROWD], seed)
        white = np.asarray(found["image"])[..., 0] > 0
        regions = found["boxes"][found["labels"] == CROWD]
        covered = np.zeros_like(white)
        for left, top, right, bottom in regions.int().tolist():
            covered[top:bottom, left:right] = True
        assert (covered == white).all(), seed
        width = found["image"].width
        partly += bool(white.any()) and width < 80 and float(regions[0, 2] - regions[0, 0]) < 30
    assert partly >= 5, "no crop left out the region's centre"


def test_regions_do_not_decide_where_the_crop_is() -> None:
    for seed in range(30):
        found = cropped([(5, 8, 25, 30), (40, 20, 80, 60)], [3, CROWD], seed)
        alone = cropped([(5, 8, 25, 30)], [3], seed)
        assert found["image"].size == alone["image"].size
        assert torch.equal(found["boxes"][found["labels"] == 3], alone["boxes"])
    whole = cropped([(40, 20, 80, 60)], [CROWD], 0)
    assert whole["image"].size == (80, 60)


def test_an_object_is_kept_if_its_centre_is() -> None:
    boxes = [(5, 8, 25, 30), (40, 20, 75, 55), (2, 40, 12, 58)]
    counts = set()
    for seed in range(40):
        found = cropped(boxes, [0, 1, 2], seed)
        (width, height) = found["image"].size
        for (left, top, right, bottom), label in zip(found["boxes"].tolist(), found["labels"].tolist(), strict=True):
            whole = boxes[label]
            assert right - left <= whole[2] - whole[0] and 0 <= left < right <= width and 0 <= top < bottom <= height
            if left > 0 and right < width and top > 0 and bottom < height:
                assert (right - left, bottom - top) == (whole[2] - whole[0], whole[3] - whole[1])
            else:
                assert right - left >= (whole[2] - whole[0]) / 2 and bottom - top >= (whole[3] - whole[1]) / 2
        counts.add(len(found["labels"]))
    assert len(counts) > 1 and 0 not in counts


def test_images_too_small_to_be_cropped_stay_whole() -> None:
    for size in ((80, 2), (1, 1), (2, 80)):
        for seed in range(5):
            assert cropped([(0, 0, *size)], [0], seed, size)["image"].size == size


def test_regions_are_kept_whatever_their_size_and_objects_from_a_size_on() -> None:
    boxes = torch.tensor([[0, 0, 4, 40], [10, 10, 20, 20], [30, 0, 34, 40], [40, 0, 40, 10]]).float()
    sample = Sample(LazyImage.of(image((0, 0, 1, 1))), boxes, torch.tensor([0, 1, CROWD, CROWD]))
    plain = AugmentationConfig(photometric=None, zoom_out=None, iou_crop=None, horizontal_flip=0.0, min_box_pixels=5)
    found = TrainTransform(prepared((60, 80), "nearest"), plain)(sample, 0)
    assert found["labels"].tolist() == [1]
    torch.testing.assert_close(found["ignored"], boxes[2:3] / torch.tensor([80, 60, 80, 60]))
