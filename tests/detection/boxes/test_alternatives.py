"""Detections of another runtime, which breaks ties in its own way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from detection.boxes.alternatives import departure
from detection.boxes.boxes import decode
from detection.boxes.postprocess import Detections, class_scores, postprocess
from detection.boxes.sections import PostprocessConfig
from tests.detection.scenes import grid_priors

PRIORS = grid_priors(6)
CONFIGS = [PostprocessConfig(), PostprocessConfig(detections=7), PostprocessConfig(candidates=60, detections=30)]


def answers(config: PostprocessConfig, sharpness: float) -> tuple[Detections, Detections, Tensor, Tensor]:
    """What is found in two images; the same with the candidates the other way round; and what both come from."""
    random = torch.Generator().manual_seed(0)
    logits = sharpness * torch.randn(2, len(PRIORS), 4, generator=random)
    codes = torch.randn(2, len(PRIORS), 4, generator=random)
    scores, boxes = class_scores(logits, sigmoid=False), decode(codes, PRIORS).clamp(0, 1)
    turned = postprocess(scores.flip(1), codes.flip(1), PRIORS.flip(0), config)
    return postprocess(scores, codes, PRIORS, config), turned, scores, boxes


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("sharpness", [1.0, 60.0])
def test_ties_may_be_broken_in_any_way(config: PostprocessConfig, sharpness: float) -> None:
    ours, turned, scores, boxes = answers(config, sharpness)
    tied = int((scores[0] == 1).sum()) > 1
    assert tied == (sharpness == 60), "float32 is at its end"
    assert torch.equal(turned.boxes, ours.boxes) is not tied
    for found in (ours, turned):
        assert departure(found, scores, boxes, config, 1e-4) == (0.0, "")
    near = replace(ours, boxes=ours.boxes + 2e-5 * (ours.scores > 0).unsqueeze(2), scores=ours.scores * 0.99998)
    worst, fault = departure(near, scores, boxes, config, 1e-4)
    assert worst == pytest.approx(2e-5, rel=0.1) and not fault


def drop(found: Detections, row: int) -> Detections:
    """Without a row of the first image."""
    values = (found.boxes, found.scores, found.labels)
    boxes, scores, labels = (torch.cat([v[:, :row], v[:, row + 1 :], 0 * v[:, :1]], 1) for v in values)
    second = (torch.cat([one[:1], other[1:]]) for one, other in zip((boxes, scores, labels), values, strict=True))
    return Detections(*second, found.counts - torch.tensor([1, 0]))


def twice(found: Detections) -> Detections:
    """With the first row in place of the second."""
    boxes, scores = found.boxes.clone(), found.scores.clone()
    labels = found.labels.clone()
    for values in (boxes, scores, labels):
        values[:, 1] = values[:, 0]
    return replace(found, boxes=boxes, scores=scores, labels=labels)


@pytest.mark.parametrize("sharpness", [1.0, 60.0])
@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (lambda found: drop(found, 0), "detections are missing in image 0"),
        (lambda found: drop(found, 3), "detections are missing in image 0"),
        (twice, "two detections of a class overlap by 1.00 in image 0"),
        (
            lambda found: replace(found, labels=(found.labels + 1) % 3 * (found.scores > 0)),
            "from any of ours in image 0",
        ),
        (
            lambda found: replace(found, labels=(found.labels + 3) * (found.scores > 0)),
            "a label is of no class in image 0",
        ),
        (lambda found: replace(found, boxes=found.boxes * 1.02), "from any of ours in image 0"),
        (
            lambda found: replace(found, boxes=found.boxes.where(found.boxes < 0.5, torch.nan)),
            "from any of ours in image 0",
        ),
        (lambda found: replace(found, scores=found.scores * torch.arange(200)), "not best first in image 0"),
        (lambda found: replace(found, counts=found.counts - 1), "what is behind the"),
    ],
)
def test_what_suppression_cannot_leave_is_said(
    wrong: Callable[[Detections], Detections], fault: str, sharpness: float
) -> None:
    config = PostprocessConfig(score_threshold=0.3)
    ours, _, scores, boxes = answers(config, sharpness)
    assert 5 < ours.counts[0] < config.detections
    assert fault in departure(wrong(ours), scores, boxes, config, 1e-4)[1]


def test_what_no_score_reaches_is_no_detection() -> None:
    config = PostprocessConfig(score_threshold=0.999999)
    ours, _, scores, boxes = answers(config, 0.1)
    assert ours.counts.tolist() == [0, 0] and departure(ours, scores, boxes, config, 1e-4) == (0.0, "")
    more, _, _, _ = answers(PostprocessConfig(), 0.1)
    assert "a score is below the threshold in image 0" in departure(more, scores, boxes, config, 1e-4)[1]
