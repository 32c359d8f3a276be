"""The crop around objects of SSD's augmentation (arXiv:1512.02325, section 2.2)."""

from __future__ import annotations

from typing import Any

from torchvision import tv_tensors
from torchvision.transforms import v2

from detection.augmentation_config import IoUCropConfig
from detection.samples import CROWD


class CropToObjects:
    """torchvision's crop, which looks for a part of the picture that fits an object.

    An object is kept if its centre is inside. Regions to ignore have no say in where the crop is, and what it leaves of
    them is kept wherever their centre is: it is as little background as before. A picture without objects stays
    whole, since there is nothing to look for, and so does one whose crops would have less than a pixel.
    """

    def __init__(self, config: IoUCropConfig) -> None:
        whole = 1.0  # torchvision's word for leaving the picture as it is
        self._crop = v2.RandomIoUCrop(*config.scale, *config.ratio, [*config.overlaps, whole], config.trials)
        self._least = config.scale[0]

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        """``sample``: ``image``, a picture, ``boxes``, a tv_tensor, and ``labels`` (n,)."""
        picture, boxes, labels = sample["image"], sample["boxes"], sample["labels"]
        objects = labels != CROWD
        if not objects.any() or min(picture.size) * self._least < 1:
            return sample
        part = self._crop.make_params([picture, tv_tensors.wrap(boxes[objects], like=boxes)])
        if not part:
            return sample
        kept = ~objects
        kept[objects] = part.pop("is_within_crop_area")
        cut = v2.functional.crop(boxes, **part)
        return {
            "image": v2.functional.crop(picture, **part),
            "boxes": tv_tensors.wrap(cut[kept], like=cut),
            "labels": labels[kept],
        }
