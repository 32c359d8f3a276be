"""The `data` and `augmentation` sections: which images are learnt from, and what may happen to them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from engine.config.paths import AbsolutePath
from engine.config.section import PartRange, PositiveRange, Probability, Section, Variants, refuse_unused
from engine.datasets.sections import CsvData, DigitsData, FolderData, ShardData, SplitData, TorchvisionData
from engine.images.sections import ImageData, ImageSize


class ChannelData(ImageData):
    """What all sources of images to generate have in common."""

    image_size: ImageSize = 32
    """Pixels of the images: one number, or [height, width]."""
    channels: Literal[1, 3] = 3
    """1: grey images; 3: red, green and blue."""

    @model_validator(mode="after")
    def _no_unused_keys(self) -> "ChannelData":
        other = "a task that classifies or detects: here images are in [-1, 1]"
        refuse_unused(self, [(key, other, [key]) for key in ("mean", "std")])
        return self


class FolderSource(ChannelData, FolderData):
    """A folder with train, perhaps val (or validation) and test, each with one folder of images a class."""


class CsvSource(ChannelData, CsvData):
    """Images that a CSV file lists, in UTF-8 with a header line."""


class ShardSource(ChannelData, ShardData):
    """Images packed into tar files, by `python -m tools.pack` or as WebDataset has them."""


class TorchvisionSource(ChannelData, TorchvisionData):
    """One of torchvision's data sets."""


class DigitsSource(ChannelData, DigitsData):
    """The 1,797 handwritten digits of 8x8 pixels that come with scikit-learn: 1,437 to train on, 360 held out (val)."""


class ImagesSource(ChannelData, SplitData):
    """A folder of images without classes, at any depth below it; or, if it has a train, below train, val and test."""

    source: Literal["images"]
    """Kind of data set."""
    root: AbsolutePath
    """The folder."""
    extensions: list[Annotated[str, Field(pattern=r"^\.\S+$")]] = FolderData.model_fields["extensions"].default
    """Endings of files that are images, in any case; other files are left alone."""
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Part of the images that is held out as val, where there is no folder of that name."""

    @model_validator(mode="after")
    def _no_classes(self) -> "ImagesSource":
        classes = "images with classes"
        refuse_unused(self, [(key, classes, ["source"]) for key in ("sampling", "oversample")])
        return self


DiffusionDataConfig = Annotated[
    FolderSource | CsvSource | ShardSource | TorchvisionSource | DigitsSource | ImagesSource, Variants("source")
]


class CropConfig(Section):
    """A random part of the image, scaled to its size."""

    scale: PartRange = (0.8, 1.0)
    """Least and largest part of its area."""
    ratio: PositiveRange = (0.9, 1.1)
    """Least and largest width to height of the part."""


class AugmentationConfig(Section):
    """What may happen to training images. Whatever it is, generated images have it too: hence so little."""

    horizontal_flip: Probability = 0.0
    """Probability of mirroring left to right; 0.5 suits all that has no writing on it."""
    vertical_flip: Probability = 0.0
    """Probability of mirroring top to bottom."""
    random_crop: CropConfig | None = None
    """A random part of each image; null: all of it, as `data.resize` says."""
