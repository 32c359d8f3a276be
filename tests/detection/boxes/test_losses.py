from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.ssd import SSD
from torchvision.ops import complete_box_iou_loss, generalized_box_iou_loss

from detection.boxes.boxes import corners, encode
from detection.boxes.losses import ciou_loss, detection_loss, giou_loss, mined_cross_entropy
from detection.boxes.matching import Matches, match
from detection.boxes.sections import LossConfig, MatchingConfig
from tests.detection.scenes import grid_priors, padded, random_boxes
from tests.detection.waits import CountWaits
from tests.sections import section

CLASSES = 4
PRIORS = grid_priors()


def scene(counts: tuple[int, ...], seed: int = 0, crowds: int = 1, columns: int = CLASSES + 1):
    """Logits, codes and matches of images with so many objects."""
    generator = torch.Generator().manual_seed(seed)
    images = [random_boxes(count, generator=generator) for count in counts]
    labels = [torch.randint(0, CLASSES, (count,), generator=generator) for count in counts]
    regions = random_boxes(len(counts), crowds, generator=generator)
    matches = match(PRIORS, *padded(images, labels), regions, MatchingConfig())
    logits = torch.randn(len(counts), len(PRIORS), columns, generator=generator)
    codes = torch.randn(len(counts), len(PRIORS), 4, generator=generator)
    return logits, codes, matches


def only(matches: Matches, images: slice) -> Matches:
    return Matches(*(getattr(matches, name)[images] for name in ("positive", "negative", "labels", "boxes")))


def by_hand(logits: Tensor, codes: Tensor, matches: Matches, config: LossConfig) -> tuple[list[float], list[float]]:
    """Losses of classes and of boxes, an image and a prior at a time."""
    class_losses, box_losses = [], []
    for b in range(len(logits)):
        positives = matches.positive[b].nonzero().flatten().tolist()
        negatives = matches.negative[b].nonzero().flatten().tolist()
        log_odds = logits[b].tolist()
        total = 0.0
        if config.classification == "cross_entropy":

            def entropy(prior: int, target: int, rows: list = log_odds) -> float:
                return math.log(sum(math.exp(x) for x in rows[prior])) - rows[prior][target]

            hard = sorted((entropy(prior, 0) for prior in negatives), reverse=True)
            wanted = max(config.negatives_per_positive * len(positives), config.min_negatives)
            total = sum(entropy(p, int(matches.labels[b, p]) + 1) for p in positives) + sum(hard[: math.ceil(wanted)])
        else:
            for prior in positives + negatives:
                for c, x in enumerate(log_odds[prior]):
                    p = 1 / (1 + math.exp(-x))
                    is_it = prior in positives and int(matches.labels[b, prior]) == c
                    right, alpha = (p, config.focal_alpha) if is_it else (1 - p, 1 - config.focal_alpha)
                    total -= alpha * (1 - right) ** config.focal_gamma * math.log(right)
        divisor = max(1, len(positives)) if config.normalizer == "positives" else config.normalizer
        class_losses.append(total / divisor)
        wanted_codes = encode(matches.boxes[b], PRIORS)
        gaps = [(codes[b, p] - wanted_codes[p]).abs().tolist() for p in positives]
        smooth = sum(0.5 * g * g if g < 1 else g - 0.5 for gap in gaps for g in gap)
        box_losses.append(smooth / divisor)
    return class_losses, box_losses


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"negatives_per_positive": 1.5, "min_negatives": 0},
        {"min_negatives": 10_000},
        {"classification": "focal"},
        {"normalizer": 12.5, "box_weight": 2.0},
    ],
)
def test_it_is_the_mean_of_what_each_image_gives_by_hand(changes):
    config = section(LossConfig, **changes)
    logits, codes, matches = scene((0, 1, 6), columns=CLASSES + (config.classification != "focal"))
    assert matches.positive.any() and not (matches.positive | matches.negative).all()
    classes, boxes = by_hand(logits.double(), codes.double(), matches, config)
    found = detection_loss(logits, codes, PRIORS, matches, config)
    assert found["loss_classes"].item() == pytest.approx(sum(classes) / 3, rel=1e-5)
    assert found["loss_boxes"].item() == pytest.approx(sum(boxes) / 3, rel=1e-5)
    assert found["loss"].item() == pytest.approx((sum(classes) + config.box_weight * sum(boxes)) / 3, rel=1e-5)


def test_one_image_is_what_torchvision_computes():
    logits, codes, matches = scene((5,), crowds=0)
    model = SSD.__new__(SSD)
    model.__dict__.update(box_coder=_coder(), neg_to_pos_ratio=3.0)
    numbers = torch.where(matches.positive[0], torch.arange(len(PRIORS)), -1)
    targets = [{"boxes": matches.boxes[0], "labels": matches.labels[0] + 1}]  # each prior's own object, at its place
    head = {"bbox_regression": codes, "cls_logits": logits}
    expected = SSD.compute_loss(model, targets, head, [corners(PRIORS)], [numbers])
    found = detection_loss(logits, codes, PRIORS, matches, section(LossConfig, min_negatives=0))
    torch.testing.assert_close(found["loss_classes"], expected["classification"])
    torch.testing.assert_close(found["loss_boxes"], expected["bbox_regression"])


def _coder():
    from torchvision.models.detection._utils import BoxCoder

    return BoxCoder((10.0, 10.0, 5.0, 5.0))


@pytest.mark.parametrize("changes", [{}, {"classification": "focal", "boxes": "ciou"}, {"normalizer": 7.0}])
def test_it_does_not_depend_on_how_images_are_spread_over_ranks(changes):
    config = section(LossConfig, **changes)
    logits, codes, matches = scene((3, 0, 9, 1), columns=CLASSES + (config.classification != "focal"))
    whole = detection_loss(logits, codes, PRIORS, matches, config)
    for parts in ([slice(0, 1), slice(1, 4)], [slice(0, 2), slice(2, 4)]):
        split = [detection_loss(logits[p], codes[p], PRIORS, only(matches, p), config) for p in parts]
        weights = [(p.stop - p.start) / 4 for p in parts]
        for name, value in whole.items():
            mean = sum(weight * each[name] for weight, each in zip(weights, split, strict=True))
            torch.testing.assert_close(mean, value)


ALL_KINDS = [(c, b) for c in ("cross_entropy", "focal") for b in ("smooth_l1", "giou", "ciou")]


@pytest.mark.parametrize(("classification", "boxes"), ALL_KINDS)
def test_a_batch_without_objects_trains_on(classification, boxes):
    config = section(LossConfig, classification=classification, boxes=boxes)
    logits, codes, matches = scene((0, 0), crowds=0, columns=CLASSES + (classification != "focal"))
    logits, codes = logits.requires_grad_(), codes.requires_grad_()
    losses = detection_loss(logits, codes, PRIORS, matches, config)
    losses["loss"].backward()
    assert losses["loss_boxes"] == 0 and losses["loss_classes"] > 0
    assert codes.grad is not None and not codes.grad.any()
    assert logits.grad.isfinite().all() and logits.grad.any()


@pytest.mark.parametrize(("classification", "boxes"), ALL_KINDS)
def test_wild_predictions_have_finite_gradients_and_ignored_priors_none(classification, boxes):
    config = section(LossConfig, classification=classification, boxes=boxes)
    logits, codes, matches = scene((4, 7), columns=CLASSES + (classification != "focal"))
    logits, codes = (30 * logits).requires_grad_(), (100 * codes).requires_grad_()
    detection_loss(logits, codes, PRIORS, matches, config)["loss"].backward()
    assert logits.grad.isfinite().all() and codes.grad.isfinite().all()
    ignored = ~(matches.positive | matches.negative)
    assert ignored.any() and not logits.grad[ignored].any()
    assert not codes.grad[~matches.positive].any() and codes.grad[matches.positive].any()


def test_gradients_of_classes_are_those_of_the_plain_formula():
    logits, _, matches = scene((2, 6))
    config = section(LossConfig, min_negatives=10_000)  # all negatives: nothing is sorted out
    one, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    mined_cross_entropy(one, matches, config).sum().backward()
    targets = torch.where(matches.positive, matches.labels + 1, 0)
    plain = torch.nn.functional.cross_entropy(other.flatten(0, 1), targets.flatten(), reduction="none")
    plain[(matches.positive | matches.negative).flatten()].sum().backward()
    torch.testing.assert_close(one.grad, other.grad)


def test_half_precision_is_summed_in_single():
    logits, codes, matches = scene((2, 3))
    losses = detection_loss(logits.bfloat16(), codes.bfloat16(), PRIORS, matches, section(LossConfig))
    assert all(value.dtype == torch.float32 for value in losses.values())


@pytest.mark.parametrize(
    ("ours", "theirs"), [(giou_loss, generalized_box_iou_loss), (ciou_loss, complete_box_iou_loss)]
)
def test_losses_of_overlap_are_torchvisions(ours, theirs):
    generator = torch.Generator().manual_seed(3)
    boxes, targets = (500 * random_boxes(200, generator=generator).double() for _ in range(2))
    one, other = boxes.clone().requires_grad_(), boxes.clone().requires_grad_()
    found, expected = ours(one, targets), theirs(other, targets, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    found.sum().backward(), expected.sum().backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-7)
    assert ours(targets, targets).abs().max() < 1e-6


@pytest.mark.parametrize("crowds", [0, 2])
@pytest.mark.parametrize("counts", [(2, 0), (0, 0)])
@pytest.mark.parametrize(("classification", "boxes"), ALL_KINDS)
def test_the_host_waits_for_nothing(classification, boxes, counts, crowds):
    config = section(LossConfig, classification=classification, boxes=boxes)
    generator = torch.Generator().manual_seed(0)
    objects = padded(
        [random_boxes(count, generator=generator) for count in counts],
        [torch.zeros(count, dtype=torch.int64) for count in counts],
    )
    regions = random_boxes(len(counts), crowds, generator=generator)
    columns = CLASSES + (classification != "focal")
    logits, codes = (torch.randn(2, len(PRIORS), k, generator=generator).requires_grad_() for k in (columns, 4))
    with CountWaits() as count:
        matches = match(PRIORS, *objects, regions, MatchingConfig())
        detection_loss(logits, codes, PRIORS, matches, config)["loss"].backward()
    assert logits.grad.any() and not count.waits


class _ReadsBackwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * gradient.sum().item()


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x[x > 1],
        lambda x: x[None, x > 1],
        lambda x: x.index_put_((x > 1,), torch.zeros(1)),
        lambda x: x.nonzero(),
        lambda x: x.masked_select(x > 1),
        lambda x: x.unique(),
        lambda x: torch.where(x > 1),
        lambda x: x[0].item(),
        lambda x: bool((x > 1).any()),
        lambda x: int(x.argmax()),
        lambda x: torch.equal(x, x),
        lambda x: x.repeat_interleave(x.long()),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: x.cpu(),
        lambda x: _ReadsBackwards.apply(x.clone().requires_grad_()).sum().backward(),
    ],
)
def test_what_counts_waits_counts_them(wait):
    with CountWaits() as count:
        wait(torch.arange(3.0))
    assert len(count.waits) == 1


@pytest.mark.parametrize(
    "harmless",
    [
        lambda x: x[torch.tensor([0, 1])],
        lambda x: x.index_put_((torch.tensor([0]),), torch.zeros(1)),
        lambda x: x.masked_fill(x > 1, 0.0),
        lambda x: torch.where(x > 1, x, 0.0),
        lambda x: x.gather(0, torch.tensor([2])),
        lambda x: x[1:].sort(),
        lambda x: x.topk(2),
    ],
)
def test_what_counts_waits_counts_nothing_else(harmless):
    with CountWaits() as count:
        harmless(torch.arange(3.0))
    assert not count.waits
