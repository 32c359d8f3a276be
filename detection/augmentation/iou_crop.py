"""A random part of an image that overlaps an object enough (arXiv:1512.02325, section 2.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from detection.augmentation.sections import IoUCropConfig
from detection.boxes.boxes import pairwise_iou
from detection.data.sample import CROWD


class IoUCrop:
    """Cuts a sample of ``image``, ``boxes`` and ``labels`` to such a part, or leaves it whole.

    torchvision's ``RandomIoUCrop``, but with all trials of an overlap looked at together: where objects are small most
    trials fail, and one after the other they cost more than all the rest of the augmentation. Objects whose centre is
    outside are dropped. Regions to ignore have no say in where the part is, and what it leaves of them is kept wherever
    their centre is: it is as little background as before. An image without objects stays whole. Draws from torch's
    global generator.
    """

    def __init__(self, config: IoUCropConfig) -> None:
        self._config = config

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        boxes, labels = sample["boxes"], sample["labels"]
        objects = labels != CROWD
        found = choose_part(boxes.as_subclass(Tensor)[objects], boxes.canvas_size, self._config)
        if found is None:
            return sample
        (left, top, right, bottom), inside = found
        kept = ~objects
        kept[objects] = inside
        size = {"top": top, "left": left, "height": bottom - top, "width": right - left}
        return {
            **sample,
            "image": F.crop(sample["image"], **size),
            "boxes": F.crop(tv_tensors.wrap(boxes[kept], like=boxes), **size),
            "labels": labels[kept],
        }


def choose_part(
    boxes: Tensor, size: tuple[int, int], config: IoUCropConfig
) -> tuple[tuple[int, int, int, int], Tensor] | None:
    """Draws a part, with the objects that have their centre in it, (n,) bool; None: the whole image.

    A least overlap is drawn, then ``config.trials`` parts; the first that is valid is taken, and if none is, another
    overlap is drawn. Valid is a part of a ratio within the bounds that has the centre of an object in it and overlaps
    an object with its centre there at least so much (IoU).

    Args:
        boxes: (n, 4) xyxy in pixels.
        size: the image's height and width.
        config: bounds, and the overlaps to draw from.
    """
    extent = torch.tensor([size[1], size[0]])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    low, high = config.scale
    while len(boxes):
        choice = int(torch.randint(len(config.overlaps) + 1, ()))
        if choice == len(config.overlaps):
            break
        sides = (extent * (low + (high - low) * torch.rand(config.trials, 2))).floor()  # width and height
        corner = ((extent - sides) * torch.rand(config.trials, 2)).floor()
        parts = torch.cat([corner, corner + sides], dim=1)
        ratios = sides[:, 0] / sides[:, 1]  # infinite or none for parts without area, which are out of bounds
        fits = (ratios >= config.ratio[0]) & (ratios <= config.ratio[1])
        inside = ((parts[:, None, :2] < centres) & (centres < parts[:, None, 2:])).all(dim=2)
        overlaps = torch.where(inside, pairwise_iou(parts, boxes), -1.0).amax(dim=1)
        valid = (fits & (overlaps >= config.overlaps[choice])).tolist()
        if any(valid):
            trial = valid.index(True)
            left, top, right, bottom = (int(side) for side in parts[trial].tolist())
            return (left, top, right, bottom), inside[trial]
    return None
