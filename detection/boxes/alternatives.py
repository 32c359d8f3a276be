"""Whether detections are among those that suppression may leave, whichever way it breaks ties.

Of a network that is sure of itself, hundreds of float32 scores are 1. Which of these come first is up to whoever sorts
them, torch one way and other runtimes another, and what comes first drops others: one answer is as right as the other,
and no row of it need be the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detection.boxes.boxes import pairwise_iou
from detection.boxes.postprocess import Detections
from detection.boxes.sections import PostprocessConfig

OVERLAP_SLACK = 1e-3
"""By which an overlap may be beyond the bound, since boxes differ by rounding."""


def departure(
    found: Detections, scores: Tensor, boxes: Tensor, config: PostprocessConfig, tolerance: float
) -> tuple[float, str]:
    """Compares detections with the scores (B, A, C) and decoded boxes (B, A, 4) that they have to come from.

    Scores as near to each other as ``tolerance`` are taken for equal.

    Returns:
        The largest difference of a box or score from the candidate that it is; and what is wrong, empty if they may be.
    """
    worst = 0.0
    for image, count in enumerate(found.counts.tolist()):
        rows = (found.boxes[image], found.scores[image], found.labels[image])
        if any(values[count:].any() for values in rows):
            return worst, f"what is behind the {count} detections of image {image} is not zero"
        kept = Kept(*(values[:count] for values in rows))
        difference, fault = kept.departure(scores[image], boxes[image], config, tolerance)
        if fault:
            return difference, f"{fault} in image {image}"
        worst = max(worst, difference)
    return worst, ""


class Kept:
    """Detections of an image: boxes (K, 4), scores and labels (K,)."""

    def __init__(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> None:
        self.boxes, self.scores, self.labels = boxes, scores, labels

    def departure(
        self, scores: Tensor, boxes: Tensor, config: PostprocessConfig, tolerance: float
    ) -> tuple[float, str]:
        """Does the same with scores (A, C) and boxes (A, 4)."""
        if (self.scores.diff() > 0).any():
            return 0.0, "detections are not best first"
        if (self.scores < config.score_threshold - tolerance).any():
            return 0.0, "a score is below the threshold"
        if (self.labels < 0).any() or (self.labels >= scores.shape[1]).any():
            return 0.0, "a label is of no class"
        far = torch.maximum(
            (self.boxes.unsqueeze(1) - boxes).abs().amax(2), (self.scores - scores[:, self.labels]).abs().t()
        )
        worst = float(far.amin(1).max()) if len(far) else 0.0
        if not worst <= tolerance:  # NaN too
            return worst, f"{int((~(far.amin(1) <= tolerance)).sum())} detections are {worst:.2g} from any of ours"
        together = self._overlaps(self.boxes, self.labels).fill_diagonal_(0)
        if (together > config.nms_iou + OVERLAP_SLACK).any():
            return worst, f"two detections of a class overlap by {float(together.max()):.2f}"
        if missing := self._missing(scores, boxes, config, tolerance):
            return worst, f"{missing} detections are missing"
        return worst, ""

    def _overlaps(self, boxes: Tensor, labels: Tensor) -> Tensor:
        """IoU of boxes with those that are kept; 0 for those of other classes."""
        same = labels.unsqueeze(1) == self.labels
        return torch.where(same, pairwise_iou(boxes, self.boxes).nan_to_num(0.0), 0.0)

    def _missing(self, scores: Tensor, boxes: Tensor, config: PostprocessConfig, tolerance: float) -> int:
        """Counts candidates that nothing has dropped, and that are not there."""
        least = config.score_threshold
        if scores.numel() > config.candidates:
            least = max(least, float(scores.flatten().topk(config.candidates).values[-1]))
        if len(self.scores) == config.detections:
            least = max(least, float(self.scores[-1]))
        priors, labels = (scores > least + tolerance).nonzero(as_tuple=True)
        own, values = boxes[priors], scores[priors, labels].unsqueeze(1)
        dropped = self._overlaps(own, labels) > config.nms_iou - OVERLAP_SLACK
        there = ((own.unsqueeze(1) - self.boxes).abs().amax(2) <= tolerance) & (labels.unsqueeze(1) == self.labels)
        explained = (dropped & (self.scores >= values - tolerance)) | (
            there & ((self.scores - values).abs() <= tolerance)
        )
        return int((~explained.any(1)).sum())
