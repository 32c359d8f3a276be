from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou, nms

from detection.boxes.boxes import corners, decode, encode
from detection.boxes.postprocess import best_pairs, class_scores, postprocess, suppress_each, suppress_together
from detection.boxes.sections import PostprocessConfig
from tests.detection.scenes import grid_priors, random_boxes, suppressing
from tests.detection.waits import CountWaits

PRIORS = grid_priors(4)


def output(classes: int = 5, images: int = 3, sharpness: float = 2.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits with a background column and codes."""
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(images, len(PRIORS), classes + 1, generator=generator)
    return logits, torch.randn(images, len(PRIORS), 4, generator=generator)


def by_hand(scores: Tensor, boxes: Tensor, config: PostprocessConfig) -> list[tuple[float, int, int]]:
    """(score, class, prior) of one image's detections: greedy suppression over every pair, in plain loops."""
    priors, classes = scores.shape
    pairs = [(scores[p, c].item(), c, p) for p in range(priors) for c in range(classes)]
    kept: list[tuple[float, int, int]] = []
    for score, c, p in sorted((pair for pair in pairs if pair[0] >= config.score_threshold), reverse=True):
        rivals = [q for _, other, q in kept if other == c]
        if not any(box_iou(boxes[[p]], boxes[[q]]).item() > config.nms_iou for q in rivals):
            kept.append((score, c, p))
    return kept[: config.detections]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    "changes", [{}, {"score_threshold": 0.2}, {"detections": 7}, {"nms_iou": 0.1}, {"score_threshold": 0.999}]
)
def test_detections_are_those_of_plain_loops(changes, together):
    config = PostprocessConfig(**changes)
    logits, codes = output()
    scores = class_scores(logits, sigmoid=False)
    with suppressing(together):
        found = postprocess(scores, codes, PRIORS, config).images()
    boxes = decode(codes, PRIORS).clamp(0, 1)
    for i, (own_boxes, own_scores, labels) in enumerate(found):
        expected = by_hand(scores[i], boxes[i], config)
        assert list(zip(own_scores.tolist(), labels.tolist(), strict=True)) == [(s, c) for s, c, _ in expected]
        if expected:
            assert torch.equal(own_boxes, boxes[i, [p for _, _, p in expected]])


@pytest.mark.parametrize("sharpness", [0.3, 4.0])
def test_it_finds_what_torchvision_finds(sharpness):
    config = PostprocessConfig(candidates=10_000)
    logits, codes = output(sharpness=sharpness)
    model = SSD.__new__(SSD)
    model.__dict__.update(
        box_coder=BoxCoder((10.0, 10.0, 5.0, 5.0)), score_thresh=0.01, nms_thresh=0.45, topk_candidates=400
    )
    model.__dict__["detections_per_img"] = 200
    head = {"bbox_regression": codes, "cls_logits": logits}
    expected = SSD.postprocess_detections(model, head, [corners(PRIORS)] * 3, [(1, 1)] * 3)
    found = postprocess(class_scores(logits, sigmoid=False), codes, PRIORS, config).images()
    for theirs, (boxes, scores, labels) in zip(expected, found, strict=True):
        torch.testing.assert_close(scores, theirs["scores"])
        assert torch.equal(labels + 1, theirs["labels"])
        torch.testing.assert_close(boxes, theirs["boxes"], rtol=0, atol=1e-6)


def test_the_first_cut_keeps_the_best_pairs_of_all():
    scores = class_scores(output(seed=4)[0], sigmoid=False)
    for count in (1, 10, 100, 10_000):
        values, labels, priors = best_pairs(scores, count)
        assert torch.equal(values, scores.flatten(1).topk(min(count, scores[0].numel()), dim=1).values)
        assert torch.equal(scores[torch.arange(3).unsqueeze(1), priors, labels], values)


def test_the_cut_changes_nothing_while_enough_is_left():
    logits, codes = output(sharpness=1.0)
    scores = class_scores(logits, sigmoid=False)
    full, cut = (
        postprocess(scores, codes, PRIORS, PostprocessConfig(candidates=n, detections=20)) for n in (10_000, 100)
    )
    assert (cut.counts == 20).all()
    for name in ("boxes", "scores", "labels"):
        assert torch.equal(getattr(full, name), getattr(cut, name))


def test_what_is_below_the_threshold_suppresses_nothing_and_is_not_found():
    boxes = torch.tensor([[0.2, 0.2, 0.6, 0.6]]).expand(len(PRIORS), 4)
    codes = encode(boxes, PRIORS).unsqueeze(0)
    scores = torch.zeros(1, len(PRIORS), 2)
    scores[0, 3, 0], scores[0, 5, 0], scores[0, 7, 1] = 0.9, 0.8, 0.7
    for together in (True, False):
        with suppressing(together):
            found, nothing = (
                postprocess(scores, codes, PRIORS, PostprocessConfig(score_threshold=least)) for least in (0.5, 0.95)
            )
        ((own, values, labels),) = found.images()
        torch.testing.assert_close(values, torch.tensor([0.9, 0.7]))
        assert labels.tolist() == [0, 1]
        torch.testing.assert_close(own, boxes[:2], rtol=0, atol=1e-6)
        assert nothing.counts.tolist() == [0] and nothing.images()[0][0].shape == (0, 4)
        assert not nothing.scores.any()


def test_boxes_end_at_the_image():
    codes = 20 * output()[1]
    boxes = postprocess(class_scores(output()[0], sigmoid=False), codes, PRIORS, PostprocessConfig()).boxes
    assert boxes.min() == 0 and boxes.max() == 1


def test_sigmoid_scores_have_no_background():
    logits = torch.randn(2, 7, 3)
    assert torch.equal(class_scores(logits, sigmoid=True), logits.sigmoid())
    assert class_scores(logits, sigmoid=False).shape == (2, 7, 2)


def test_fewer_priors_than_candidates_and_one_class():
    found = postprocess(torch.rand(2, 3, 1), torch.zeros(2, 3, 4), PRIORS[:3], PostprocessConfig())
    assert found.boxes.shape == (2, 200, 4) and (found.counts <= 3).all()


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("threshold", [0.01, 0.999])
def test_the_host_waits_once_for_a_batch(threshold, sigmoid):
    logits, codes = output()
    config = PostprocessConfig(score_threshold=threshold)
    with suppressing(together=True), CountWaits() as count:
        postprocess(class_scores(logits, sigmoid), codes, PRIORS, config)
    assert count.waits == ["torchvision.nms.default"]


@pytest.mark.parametrize("images", [1, 3, 4, 5, 9])
def test_a_call_has_a_bounded_number_of_boxes_and_none_changes_the_result(images, monkeypatch):
    """Here four images of 32 candidates: on a GPU one call for a whole batch takes memory for every pair of boxes."""
    calls = []

    def counted(boxes, scores, iou):
        calls.append(len(boxes))
        return nms(boxes, scores, iou)

    monkeypatch.setattr("detection.boxes.postprocess.nms", counted)
    logits, codes = output(images=images, sharpness=1.0, seed=images)
    given = class_scores(logits, sigmoid=False), codes, PRIORS
    values, labels, numbers = best_pairs(given[0], 32)
    boxes = decode(codes.gather(1, numbers.unsqueeze(-1).expand(-1, -1, 4)), PRIORS[numbers]).clamp(0, 1)
    candidates = boxes, values, labels, values >= 0.05, 0.3
    each = suppress_each(*candidates)
    for limit in (1, 32, 127, 128, 129, 10_000):
        calls.clear()
        assert torch.equal(suppress_together(*candidates, boxes_a_call=limit), each)
        assert max(calls) <= max(limit, 32) and sum(calls) == 32 * images
    assert 0 < each.sum() < candidates[3].sum()  # some are suppressed

    calls.clear()
    with suppressing(together=True):
        postprocess(torch.rand(26, len(PRIORS), 40), codes[:1].expand(26, -1, -1), PRIORS, PostprocessConfig())
    assert calls == [25_000, 1000]


@pytest.mark.parametrize(("device", "way"), [("cpu", "each"), ("meta", "together")])
def test_images_are_suppressed_together_but_on_a_cpu(device, way, monkeypatch):
    calls = []
    for name in ("each", "together"):
        noted = lambda boxes, scores, labels, valid, iou, name=name: calls.append(name) or valid  # noqa: E731
        monkeypatch.setattr(f"detection.boxes.postprocess.suppress_{name}", noted)
    scores, codes = torch.rand(2, len(PRIORS), 3, device=device), torch.zeros(2, len(PRIORS), 4, device=device)
    postprocess(scores, codes, PRIORS.to(device), PostprocessConfig())
    assert calls == [way]


def test_many_classes_and_images_are_kept_apart():
    """The offsets that keep groups apart must not eat up the boxes' precision."""
    generator = torch.Generator().manual_seed(5)
    scores = torch.rand(64, len(PRIORS), 90, generator=generator)
    codes = encode(random_boxes(64, len(PRIORS), generator=generator), PRIORS)
    config = PostprocessConfig(candidates=40, detections=40)
    with suppressing(together=True):
        one = postprocess(scores, codes, PRIORS, config)
    other = postprocess(scores, codes, PRIORS, config)
    assert torch.equal(one.scores, other.scores) and torch.equal(one.boxes, other.boxes)
