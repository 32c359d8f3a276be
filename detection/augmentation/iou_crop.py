"""A random part of an image that overlaps an object enough (arXiv:1512.02325, section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from detection.augmentation.sections import IoUCropConfig
from detection.boxes.boxes import pairwise_iou


def choose_part(
    boxes: Tensor, size: tuple[int, int], config: IoUCropConfig
) -> tuple[tuple[int, int, int, int], Tensor] | None:
    """Draws a part, with the objects that have their centre in it, (n,) bool; None: the whole image.

    torchvision's ``RandomIoUCrop``, but with all trials of an overlap looked at together: where objects are small most
    trials fail, and one after the other they cost more than all the rest of the augmentation. Draws from torch's global
    generator.

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
