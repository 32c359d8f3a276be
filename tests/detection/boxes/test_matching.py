from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import SSDMatcher
from torchvision.ops import box_iou

from detection.boxes.boxes import corners
from detection.boxes.matching import Matches, match
from detection.boxes.sections import MatchingConfig
from tests.detection.scenes import grid_priors, padded, random_boxes

CONFIG = MatchingConfig()
NO_REGIONS = torch.zeros(1, 0, 4)


def by_hand(priors: Tensor, boxes: Tensor, ignored: Tensor) -> tuple[list[int], list[bool]]:
    """The object of each prior (-1: none) in one image, and whether it is ignored; one comparison at a time."""
    iou = box_iou(boxes, corners(priors)).tolist()
    found = []
    for prior in range(len(priors)):
        column = [row[prior] for row in iou]
        best = max(range(len(column)), key=column.__getitem__) if column else -1
        found.append(best if column and column[best] >= 0.5 else -1)
    taken: dict[int, float] = {}
    for number, row in enumerate(iou):
        best = max(range(len(row)), key=row.__getitem__)
        if row[best] > 0 and row[best] >= taken.get(best, 0.0):
            found[best], taken[best] = number, row[best]
    inside = []
    for left, top, right, bottom in corners(priors).tolist():
        parts = [
            max(0.0, min(right, r) - max(left, x)) * max(0.0, min(bottom, b) - max(top, y))
            for x, y, r, b in ignored.tolist()
        ]
        inside.append(any(part >= 0.5 * (right - left) * (bottom - top) for part in parts))
    return found, inside


@pytest.mark.parametrize("seed", range(8))
def test_a_batch_is_matched_as_one_image_after_the_other_by_hand(seed):
    generator = torch.Generator().manual_seed(seed)
    priors = grid_priors()
    counts = [0, 1, 5, 12]
    images = [random_boxes(count, generator=generator) for count in counts]
    classes = [torch.randint(0, 9, (count,), generator=generator) for count in counts]
    regions = random_boxes(4, 2, generator=generator)
    regions[0] = 0
    found = match(priors, *padded(images, classes), regions, CONFIG)
    for i, (boxes, labels) in enumerate(zip(images, classes, strict=True)):
        objects, inside = by_hand(priors, boxes, regions[i])
        positive = [number >= 0 for number in objects]
        assert found.positive[i].tolist() == positive
        assert found.negative[i].tolist() == [not p and not i for p, i in zip(positive, inside, strict=True)]
        assert found.labels[i].tolist() == [int(labels[number]) if number >= 0 else 0 for number in objects]
        expected = [boxes[n] if n >= 0 else corners(priors)[p] for p, n in enumerate(objects)]
        assert torch.equal(found.boxes[i], torch.stack(expected))


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_it_agrees_with_torchvision_where_no_two_objects_want_one_prior(seed):
    generator = torch.Generator().manual_seed(seed)
    priors, boxes = grid_priors(12), random_boxes(6, generator=generator)
    iou = box_iou(boxes, corners(priors))
    assert len(set(iou.argmax(dim=1).tolist())) == 6
    expected = SSDMatcher(0.5)(iou)
    found = match(priors, *padded([boxes], [torch.arange(6)]), NO_REGIONS, CONFIG)
    assert torch.equal(found.positive[0], expected >= 0)
    assert torch.equal(found.labels[0], expected.clamp(min=0))


def one(boxes: Tensor, regions: Tensor = NO_REGIONS, priors: Tensor | None = None) -> Matches:
    given = grid_priors() if priors is None else priors
    return match(given, *padded([boxes], [torch.arange(len(boxes))]), regions, CONFIG)


def test_every_object_has_a_prior_however_small_it_is():
    found = one(torch.tensor([[0.50, 0.50, 0.51, 0.51], [0.1, 0.1, 0.9, 0.12]]))
    assert set(found.labels[found.positive].tolist()) == {0, 1}


def test_a_prior_that_two_objects_want_goes_to_the_one_that_overlaps_it_more():
    priors = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.05, 0.05]])
    closer, farther = [0.4, 0.4, 0.6, 0.58], [0.4, 0.4, 0.6, 0.45]
    for order in ([closer, farther], [farther, closer]):
        found = one(torch.tensor(order), priors=priors)
        assert found.positive.tolist() == [[True, False]]
        torch.testing.assert_close(found.boxes[0, 0], torch.tensor(closer))


def test_an_object_beyond_all_priors_takes_none():
    assert not one(torch.tensor([[0.9, 0.9, 1.0, 1.0]]), priors=torch.tensor([[0.2, 0.2, 0.1, 0.1]])).positive.any()


def test_a_crowd_is_neither_object_nor_background_and_objects_in_it_count():
    priors = torch.tensor([[0.2, 0.2, 0.2, 0.2], [0.8, 0.8, 0.2, 0.2], [0.3, 0.2, 0.2, 0.2]])
    crowd = torch.tensor([[[0.0, 0.0, 0.3, 0.5], [0.0, 0.0, 0.0, 0.0]]])
    found = one(torch.zeros(0, 4), crowd, priors)
    assert not found.positive.any()
    assert found.negative.tolist() == [[False, True, False]]  # the third lies in it by exactly a half
    found = one(torch.tensor([[0.1, 0.1, 0.3, 0.3]]), crowd, priors)
    assert found.positive.tolist() == [[True, False, False]] and found.negative.tolist() == [[False, True, False]]


def test_objects_are_matched_alike_however_many_images_fit_the_cache(monkeypatch):
    generator = torch.Generator().manual_seed(2)
    images = [random_boxes(count, generator=generator) for count in (4, 0, 7, 1, 2)]
    batch = padded(images, [torch.arange(len(boxes)) for boxes in images])
    expected = match(grid_priors(), *batch, torch.zeros(5, 0, 4), CONFIG)
    for cached in (1, 2 * 7 * len(grid_priors())):
        monkeypatch.setattr("detection.boxes.matching.CACHED_OVERLAPS", cached)
        found = match(grid_priors(), *batch, torch.zeros(5, 0, 4), CONFIG)
        assert all(torch.equal(getattr(found, name), getattr(expected, name)) for name in vars(expected))


def test_rows_that_fill_up_may_hold_anything():
    boxes = random_boxes(2, 5, generator=torch.Generator().manual_seed(4))
    labels, mask = torch.arange(5).expand(2, 5), torch.arange(5) < torch.tensor([[2], [0]])
    found = match(grid_priors(), boxes, labels, mask, torch.zeros(2, 0, 4), CONFIG)
    expected = match(grid_priors(), boxes[:1, :2], labels[:1, :2], mask[:1, :2], NO_REGIONS, CONFIG)
    assert torch.equal(found.positive[:1], expected.positive) and torch.equal(found.boxes[:1], expected.boxes)
    assert not found.positive[1].any() and found.negative[1].all()
