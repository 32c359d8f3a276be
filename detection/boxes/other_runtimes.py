"""Suppression of doubles for runtimes that have no torchvision: as ONNX's operator, and in the plainest operations.

Shapes as in :mod:`detection.boxes.postprocess`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from detection.boxes.boxes import pairwise_iou
from detection.boxes.postprocess import suppress_each

ROUNDS = 32
"""Longest chain of boxes, each of which is dropped or kept for the one before it, that :func:`suppress_plainly` follows
to its end."""


@torch.library.custom_op(
    "swin_hpc::suppress",
    mutates_args=(),
    schema="(Tensor boxes, Tensor scores, Tensor labels, Tensor valid, float iou, int classes) -> Tensor",
)
def suppress_by_operator(
    boxes: Tensor, scores: Tensor, labels: Tensor, valid: Tensor, iou: float, classes: int
) -> Tensor:
    """Says which candidates are kept, in one operation of a graph, which :func:`onnx_translations` translates."""
    return suppress_each(boxes, scores, labels, valid, iou)


@suppress_by_operator.register_fake
def _(boxes: Tensor, scores: Tensor, labels: Tensor, valid: Tensor, iou: float, classes: int) -> Tensor:
    return torch.empty_like(valid)


def onnx_translations() -> dict[Any, Callable[..., Any]]:
    """Returns what ``torch.onnx.export`` makes of :func:`suppress_by_operator`: ONNX's NonMaxSuppression.

    It takes scores of each class by itself, (B, C, N). The candidates come best first, so their places from behind
    serve as scores: what is equal stays in order, and 0 stands for what takes no part.
    """
    from onnxscript import opset18

    op: Any = opset18  # whose annotations know no constants

    def suppress(boxes: Any, scores: Any, labels: Any, valid: Any, iou: float, classes: int) -> Any:
        count = int(boxes.shape[1])
        places = op.Constant(value_floats=[float(count - place) for place in range(count)])
        numbers = op.Reshape(op.Constant(value_ints=list(range(classes))), op.Constant(value_ints=[1, classes, 1]))
        middle = op.Constant(value_ints=[1])
        own = op.And(op.Equal(op.Unsqueeze(labels, middle), numbers), op.Unsqueeze(valid, middle))
        apart = op.Where(own, places, op.Constant(value_float=0.0))
        bounds = (op.Constant(value_floats=[value]) for value in (iou, 0.5))
        kept = op.NonMaxSuppression(boxes, apart, op.Constant(value_ints=[count]), *bounds)
        where = op.Gather(kept, op.Constant(value_ints=[0, 2]), axis=1)
        none = op.Xor(valid, valid)
        ones = op.Equal(
            op.Gather(kept, op.Constant(value_int=0), axis=1), op.Gather(kept, op.Constant(value_int=0), axis=1)
        )
        return op.ScatterND(none, where, ones)

    return {torch.ops.swin_hpc.suppress.default: suppress}


def suppress_plainly(boxes: Tensor, scores: Tensor, labels: Tensor, valid: Tensor, iou: float) -> Tensor:
    """Says which candidates are kept, by comparing all with all, again and again until nothing changes.

    A candidate goes if one before it that stays is of its class and overlaps it. What is before all others stays; in
    each round what is known of the others reaches one step further, :data:`ROUNDS` in all.
    """
    count = boxes.shape[1]
    places = torch.arange(count, device=boxes.device)
    overlaps = (
        torch.stack([pairwise_iou(own, own) for own in boxes]) if boxes.shape[0] > 1 else pairwise_iou(boxes, boxes[0])
    )
    drops = (overlaps > iou) & (labels.unsqueeze(2) == labels.unsqueeze(1)) & (places < places.unsqueeze(1))
    drops, able = drops.float(), valid.float().unsqueeze(2)
    keep = able
    for _ in range(ROUNDS):
        keep = able * (drops @ keep < 0.5).float()
    return keep.squeeze(2) > 0.5
