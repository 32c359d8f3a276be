"""The crop around objects: what is kept, and what decides where it is."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors

from detection.augmentation_config import AugmentationConfig, IoUCropConfig
from detection.cropping import CropToObjects
from detection.samples import CROWD, Sample
from detection.transforms import TrainTransform
from engine.seed import sample_randomness

CONFIG = IoUCropConfig(overlaps=[0.0], scale=(0.4, 0.7))


def picture(region: tuple[int, int, int, int], size: tuple[int, int] = (80, 60)) -> Image.Image:
    """Black, the region white."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    left, top, right, bottom = region
    pixels[top:bottom, left:right] = 255
    return Image.fromarray(pixels)


def cropped(boxes: list, labels: list[int], seed: int, size: tuple[int, int] = (80, 60)) -> dict:
    regions = [box for box, label in zip(boxes, labels, strict=True) if label == CROWD] or [(0, 0, 0, 0)]
    sample = {
        "image": picture(regions[0], size),
        "boxes": tv_tensors.BoundingBoxes(
            torch.tensor(boxes).float().view(-1, 4), format="XYXY", canvas_size=(size[1], size[0])
        ),
        "labels": torch.tensor(labels),
    }
    with sample_randomness(seed):
        return CropToObjects(CONFIG)(sample)


def test_what_is_left_of_a_region_is_kept_wherever_its_centre_is() -> None:
    partly = 0
    for seed in range(60):
        found = cropped([(5, 8, 25, 30), (20, 0, 80, 60)], [3, CROWD], seed)
        white = np.asarray(found["image"])[..., 0] > 0
        regions = found["boxes"][found["labels"] == CROWD].as_subclass(torch.Tensor)
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


def test_pictures_too_small_to_be_cropped_stay_whole() -> None:
    for size in ((80, 2), (1, 1), (2, 80)):
        for seed in range(5):
            assert cropped([(0, 0, *size)], [0], seed, size)["image"].size == size


def test_regions_are_kept_whatever_their_size_and_objects_from_a_size_on() -> None:
    boxes = torch.tensor([[0, 0, 4, 40], [10, 10, 20, 20], [30, 0, 34, 40], [40, 0, 40, 10]]).float()
    sample = Sample(picture((0, 0, 1, 1)), boxes, torch.tensor([0, 1, CROWD, CROWD]))
    plain = AugmentationConfig(photometric=None, zoom_out=None, iou_crop=None, horizontal_flip=0.0, min_box_pixels=5)
    found = TrainTransform((60, 80), "nearest", (0.5, 0.5, 0.5), plain)(sample, 0)
    assert found["labels"].tolist() == [1]
    torch.testing.assert_close(found["ignored"], boxes[2:3] / torch.tensor([80, 60, 80, 60]))
