"""The `augmentation` section of detection: what training images go through at random, in this order. Null: not."""

from typing import Annotated

from pydantic import Field

from engine.config.section import Few, Fraction, NonNegativeRange, PartRange, PositiveRange, Probability, Section


class MosaicConfig(Section):
    """Four images as the quarters of one (arXiv:2004.10934)."""

    probability: Probability = 0.5
    """Probability that an image gets three partners."""
    centre: PartRange = (0.3, 0.7)
    """Where the four meet, both ways, as parts of the whole."""
    visible: Probability = 0.3
    """Part of an object that has to be left for it to count; less is neither object nor background."""


class PhotometricConfig(Section):
    """Random brightness, contrast, saturation and hue, and swapped channels, as torchvision's distortion for SSD."""

    brightness: NonNegativeRange = (0.875, 1.125)
    """Least and largest factor, here and below."""
    contrast: NonNegativeRange = (0.5, 1.5)
    """Least and largest factor."""
    saturation: NonNegativeRange = (0.5, 1.5)
    """Least and largest factor."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Largest shift, either way, as a part of the colour circle."""
    probability: Probability = 0.5
    """Probability of each of them, and of swapping channels."""


class ZoomOutConfig(Section):
    """The image somewhere on a larger one of the mean colour."""

    probability: Probability = 0.5
    """Probability that it is done."""
    largest: Annotated[float, Field(ge=1, le=16)] = 4.0
    """Most by which the sides grow; the factor is drawn from 1 to this."""


class IoUCropConfig(Section):
    """A part of the image that overlaps an object at least so much as drawn (arXiv:1512.02325, section 2.2)."""

    overlaps: list[Fraction] = [0.0, 0.1, 0.3, 0.5, 0.7, 0.9]
    """One is drawn as the least IoU with an object, or, as likely as each of them, the image stays whole."""
    scale: PartRange = (0.3, 1.0)
    """Least and largest part of each side."""
    ratio: PositiveRange = (0.5, 2.0)
    """Least and largest width divided by height, in pixels."""
    trials: Few = 40
    """Parts that are tried before another overlap is drawn."""


class AugmentationConfig(Section):
    """Random changes to training images: SSD's, and mosaic."""

    mosaic: MosaicConfig | None = None
    """Four images in one."""
    zoom_out: ZoomOutConfig | None = ZoomOutConfig()
    """Smaller objects."""
    iou_crop: IoUCropConfig | None = IoUCropConfig()
    """Larger objects, and parts of them."""
    horizontal_flip: Probability = 0.5
    """Probability of mirroring left and right."""
    vertical_flip: Probability = 0.0
    """Probability of mirroring top and bottom."""
    photometric: PhotometricConfig | None = PhotometricConfig()
    """Colours."""
    min_box_pixels: Annotated[float, Field(ge=1)] = 1.0
    """Objects smaller than this on a side, at the model's size, are left out."""
