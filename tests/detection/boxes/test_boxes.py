from __future__ import annotations

import math

import pytest
import torch
from torchvision.ops import box_area, box_convert, box_iou

from detection.boxes.boxes import corners, decode, encode, intersections, pairwise_iou
from tests.detection.scenes import grid_priors, random_boxes


def test_codes_are_those_of_the_paper():
    prior, box = torch.tensor([[0.5, 0.4, 0.2, 0.4]]), torch.tensor([[0.5, 0.2, 0.6, 0.6]])
    shift, size = (0.55 - 0.5) / 0.2 / 0.1, math.log(0.1 / 0.2) / 0.2
    torch.testing.assert_close(encode(box, prior), torch.tensor([[shift, 0.0, size, 0.0]]))


def test_decoding_undoes_encoding():
    priors = grid_priors()
    boxes = random_boxes(3, len(priors), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(decode(encode(boxes, priors), priors), boxes, rtol=0, atol=1e-6)


def test_wild_codes_are_boxes_still():
    priors = grid_priors(2)
    for code in (1e4, -1e4):
        boxes = decode(torch.full((len(priors), 4), code), priors)
        assert boxes.isfinite().all() and (box_area(boxes) > 0).all()


def test_forms_areas_and_overlaps_are_torchvisions():
    generator = torch.Generator().manual_seed(1)
    priors, boxes = grid_priors(), random_boxes(2, 5, generator=generator)
    torch.testing.assert_close(corners(priors), box_convert(priors, "cxcywh", "xyxy"))
    iou = pairwise_iou(boxes, corners(priors))
    assert torch.equal(iou, torch.stack([box_iou(own, corners(priors)) for own in boxes]))
    common = intersections(boxes, corners(priors))
    union = box_area(boxes).unsqueeze(-1) + box_area(corners(priors)) - common
    torch.testing.assert_close(common / union, iou)


def test_overlap_does_not_change_when_an_axis_is_stretched():
    boxes = random_boxes(7, generator=torch.Generator().manual_seed(2))
    pixels = boxes * torch.tensor([640.0, 480.0, 640.0, 480.0])
    torch.testing.assert_close(pairwise_iou(pixels, pixels), pairwise_iou(boxes, boxes))
    assert pairwise_iou(boxes, boxes).diagonal().tolist() == pytest.approx([1.0] * 7)
