from __future__ import annotations

import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.ops import box_iou
from torchvision.transforms import v2

from detection.augmentation_config import IoUCropConfig
from detection.iou_crop import IoUCrop, choose_part

SIZE = (120, 160)
BOXES = torch.tensor([[10.0, 10.0, 60.0, 90.0], [70.0, 40.0, 150.0, 110.0], [100.0, 5.0, 120.0, 25.0]])


@pytest.mark.parametrize("least", [0.0, 0.3, 0.5])
def test_a_part_keeps_to_its_bounds_and_overlaps_an_object_enough(least):
    torch.manual_seed(0)
    config = IoUCropConfig(overlaps=[least], scale=(0.4, 0.9), ratio=(0.6, 1.8))
    found = [choose_part(BOXES, SIZE, config) for _ in range(200)]
    parts = [each for each in found if each is not None]
    assert 50 < len(parts) < 150  # the whole picture is drawn as often as the one overlap
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


def test_what_is_impossible_leaves_the_picture_whole():
    small = torch.tensor([[10.0, 10.0, 12.0, 12.0]])
    torch.manual_seed(0)
    assert all(choose_part(small, SIZE, IoUCropConfig(overlaps=[0.9])) is None for _ in range(5))
    assert choose_part(torch.zeros(0, 4), SIZE, IoUCropConfig(overlaps=[0.0])) is None
    tiny = IoUCropConfig(overlaps=[0.0], scale=(0.1, 0.4))
    assert choose_part(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), (2, 2), tiny) is None  # every part is without area


def test_picture_boxes_and_labels_are_cut_alike():
    boxes = tv_tensors.BoundingBoxes(BOXES, format="XYXY", canvas_size=SIZE)
    sample = {"image": Image.new("RGB", (160, 120)), "boxes": boxes, "labels": torch.tensor([0, 1, 2])}
    torch.manual_seed(1)
    crop, cut = IoUCrop(IoUCropConfig()), 0
    for _ in range(30):
        found = crop(sample)
        width, height = found["image"].size
        assert tuple(found["boxes"].canvas_size) == (height, width)
        assert len(found["boxes"]) == len(found["labels"]) > 0
        assert (found["boxes"] >= 0).all() and (found["boxes"] <= torch.tensor([width, height] * 2)).all()
        cut += (width, height) != (160, 120)
    assert cut > 10 and sample["boxes"] is boxes
