"""The `data` section: where the pictures come from and how they are brought to the model's size."""

from typing import Annotated, Literal

from pydantic import Field

from engine.config import AbsolutePath, Section

Side = Annotated[int, Field(ge=1)]
ImageSize = Side | tuple[Side, Side]
ChannelMean = tuple[
    Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]
]
ChannelStd = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


class CommonData(Section):
    """What every source of pictures has in common."""

    image_size: ImageSize = 224
    """Pixels of the model's input: one number, or [height, width]."""
    resize: Literal["crop", "squash"] = "crop"
    """How a picture gets that size where nothing is random: the middle of it in its own proportions, or all of it."""
    crop_pct: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = "auto"
    """Part of the shorter side that `resize: crop` keeps; auto: the model's own, and all of pictures that are tiny."""
    interpolation: Interpolation | Literal["auto"] = "auto"
    """Filter for resizing; auto: the model's own, else bicubic."""
    mean: ChannelMean | Literal["auto"] = "auto"
    """What is subtracted from red, green and blue in [0, 1]; auto: the model's own, else ImageNet's."""
    std: ChannelStd | Literal["auto"] = "auto"
    """What they are divided by then; auto: the model's own, else ImageNet's."""
    sampling: Literal["natural"] = "natural"
    """How often a training picture is drawn; natural: each once an epoch."""
    drop_last: bool = True
    """Drop the pictures of an epoch that do not fill a global batch; false: train on them in a smaller one."""
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Processes that read pictures, for each rank; 0: the main process reads; auto: the rank's cores less one."""
    prefetch: Annotated[int, Field(ge=1)] = 2
    """Micro-batches that each worker keeps ready."""
    multiprocessing_context: Literal["fork", "spawn", "forkserver"] | None = None
    """How workers are started; null: the platform's own way."""


class FolderData(CommonData):
    """A folder with train, val (or validation) and perhaps test, each with one folder of pictures a class."""

    source: Literal["folder"]
    """Kind of data set."""
    root: AbsolutePath
    """The folder that holds train and val."""
    extensions: list[Annotated[str, Field(pattern=r"^\.\S+$")]] = [
        ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif",
    ]  # fmt: skip
    """Endings of files that are pictures, in any case; other files are left alone."""


TorchvisionSource = Literal["cifar10", "cifar100", "mnist", "fashion_mnist", "kmnist"]


class TorchvisionData(CommonData):
    """One of torchvision's data sets; its official test part serves as val."""

    source: TorchvisionSource
    """Kind of data set."""
    root: AbsolutePath
    """Folder that holds (or is to hold) the files as torchvision lays them out."""
    download: bool = False
    """Fetch the files when they are not there."""


class DigitsData(CommonData):
    """The 1,797 handwritten digits of 8x8 pixels that come with scikit-learn: 1,437 to train on, 360 held out (val)."""

    source: Literal["digits"]
    """Kind of data set."""


DataConfig = Annotated[FolderData | TorchvisionData | DigitsData, Field(discriminator="source")]
