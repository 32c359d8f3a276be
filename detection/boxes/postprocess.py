"""From the model's output to detections: a first cut, decoding, suppression of doubles, the best of each image.

Shapes: B images, A priors, C classes, N candidates an image, D detections an image at most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import nms

from detection.boxes.boxes import decode
from detection.boxes.sections import PostprocessConfig

BOXES_A_CALL = 25_000
"""Most boxes of one suppression on a GPU, which holds a bit for each pair of them: 78 MB for so many. torchvision's
``batched_nms`` takes no more together either."""


@dataclass(frozen=True)
class Detections:
    """Detections of a batch on its device, the best of each image first; rows behind an image's count are zero."""

    boxes: Tensor
    """(B, D, 4) xyxy in [0, 1]."""
    scores: Tensor
    """(B, D) in [0, 1]."""
    labels: Tensor
    """(B, D) int64, classes from 0 on."""
    counts: Tensor
    """(B,) int64."""

    def images(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Returns boxes, scores and labels of each image, on the CPU, by one copy from the device."""
        columns = [self.boxes, self.scores.unsqueeze(-1), self.labels.unsqueeze(-1)]
        counts = self.counts.view(-1, 1, 1).expand(-1, 1, 6)
        packed = torch.cat([torch.cat([column.float() for column in columns], dim=-1), counts.float()], dim=1).cpu()
        return [
            (own[:count, :4], own[:count, 4], own[:count, 5].long())
            for own, count in zip(packed, packed[:, -1, 0].int().tolist(), strict=True)
        ]


def class_scores(logits: Tensor, sigmoid: bool) -> Tensor:
    """Returns probabilities (B, A, C) of the classes; ``logits`` has the background's before them, unless sigmoid."""
    return logits.float().sigmoid() if sigmoid else logits.float().softmax(dim=-1)[..., 1:]


Suppress = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]
"""Says which candidates (B, N) are kept of boxes (B, N, 4), scores, labels and validity (B, N), at an IoU."""


@torch.no_grad()
def postprocess(
    scores: Tensor, codes: Tensor, priors: Tensor, config: PostprocessConfig, suppress: Suppress | None = None
) -> Detections:
    """Finds the detections of a batch.

    Of each image the ``config.candidates`` best pairs of prior and class are kept, whatever their class. Suppression
    goes from the best to the worst, so that this first cut changes no result but where fewer than
    ``config.detections`` of so many candidates are left.

    Args:
        scores: (B, A, C), see :func:`class_scores`.
        codes: (B, A, 4).
        priors: (A, 4) cxcywh.
        suppress: None: the one that suits the device.
    """
    values, labels, numbers = best_pairs(scores, config.candidates)
    rows = numbers.unsqueeze(-1).expand(-1, -1, 4)
    boxes = decode(codes.float().gather(1, rows), priors[numbers]).clamp_(0, 1)
    valid = values >= config.score_threshold
    # One call for many images lets the host wait once; a CPU's work grows with the square of a call's boxes.
    if suppress is None:
        suppress = suppress_each if scores.device.type == "cpu" else suppress_together
    keep = suppress(boxes, values, labels, valid, config.nms_iou)
    return _best(boxes, values, labels, keep, config.detections)


def best_pairs(scores: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Finds the best pairs of prior and class of each image, best first: scores, classes and priors, (B, N) each.

    Only priors whose best class is among the ``count`` best of their image can have a part in it, so the others are
    left out before all their classes are looked at.
    """
    priors = scores.amax(dim=2).topk(min(count, scores.shape[1]), dim=1).indices
    classes = scores.shape[2]
    pairs = scores.gather(1, priors.unsqueeze(-1).expand(-1, -1, classes)).flatten(1)
    values, places = pairs.topk(min(count, pairs.shape[1]), dim=1)
    return values, places % classes, priors.gather(1, places // classes)


def _apart(boxes: Tensor, groups: Tensor) -> Tensor:
    """Boxes moved so that those of different groups do not meet; in float64, where a far move costs no precision."""
    return boxes.double() + 2.0 * groups.unsqueeze(-1)


def suppress_together(
    boxes: Tensor, scores: Tensor, labels: Tensor, valid: Tensor, iou: float, boxes_a_call: int = BOXES_A_CALL
) -> Tensor:
    """Says which candidates (B, N) are kept, by a call for as many images as have ``boxes_a_call``, or for one."""
    images = max(1, boxes_a_call // boxes.shape[1])
    split = [tensor.split(images) for tensor in (boxes, scores, labels, valid)]
    return torch.cat([suppress_at_once(b, s, k, v, iou) for b, s, k, v in zip(*split, strict=True)])


def suppress_at_once(boxes: Tensor, scores: Tensor, labels: Tensor, valid: Tensor, iou: float) -> Tensor:
    """The same by one call. Candidates that are not valid lose their area, so that they suppress none."""
    images = torch.arange(boxes.shape[0], device=boxes.device).unsqueeze(1)
    groups = images * (labels.amax() + 1) + labels
    moved = _apart(boxes * valid.unsqueeze(-1), groups)
    kept = nms(moved.flatten(0, 1), scores.double().flatten(), iou)
    return torch.zeros_like(labels).flatten().index_fill_(0, kept, 1).view_as(valid).bool() & valid


def suppress_each(boxes: Tensor, scores: Tensor, labels: Tensor, valid: Tensor, iou: float) -> Tensor:
    """Says the same image by image. Candidates come best first, so those that are valid come before the others."""
    keep = torch.zeros_like(valid)
    moved = _apart(boxes, labels)
    for image, count in enumerate(valid.sum(dim=1).tolist()):
        kept = nms(moved[image, :count], scores[image, :count].double(), iou)
        keep[image, kept] = True
    return keep


def _best(boxes: Tensor, scores: Tensor, labels: Tensor, keep: Tensor, count: int) -> Detections:
    """The first ``count`` candidates of each image that are kept, moved together."""
    places = (keep.cumsum(dim=1) - 1).clamp_(max=count)
    places = torch.where(keep, places, count)  # a column more takes what is left out
    size = (boxes.shape[0], count + 1)  # len() would fix the batch of an exported model
    best = boxes.new_zeros(*size, 4).scatter_(1, places.unsqueeze(-1).expand(-1, -1, 4), boxes)
    return Detections(
        best[:, :count],
        scores.new_zeros(size).scatter_(1, places, scores)[:, :count],
        scores.new_zeros(size).scatter_(1, places, labels.to(scores))[:, :count].long(),  # LiteRT has none of integers
        keep.sum(dim=1).clamp(max=count),
    )
