"""The `data` section: where the images come from and how they are brought to the model's size."""

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from engine.config.paths import AbsolutePath
from engine.config.section import Bits64, OnlyWith, Section, Variants
from engine.images.sections import ImageData

Byte = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Byte, Byte, Byte]


class CommonData(ImageData):
    """Settings of every source of labelled images."""

    resize: Literal["crop", "squash", "pad"] = "crop"
    """How an image gets that size where nothing is random: crop: its middle, in its own proportions; squash: all of
    it, stretched; pad: all of it in its own proportions, with bars at two sides."""
    pad_fill: Literal["mean", "edge"] | Colour = "mean"
    """What `resize: pad` fills the bars with: the mean colour, the image's outermost pixels, or [red, green, blue] in
    0 to 255; what rotation uncovers has the same colour, or with edge the mean."""
    crop_pct: Annotated[Annotated[float, Field(ge=0.1, le=1)] | Literal["auto"], OnlyWith(("resize",), ("crop",))] = (
        "auto"
    )
    """Part of the shorter side that `resize: crop` keeps; auto: the model's own, and all of images that are tiny."""
    sampling: Literal["natural", "balanced", "square_root"] = "natural"
    """How often a training image is drawn; natural: each once an epoch; balanced: every class equally often;
    square_root: a class of n images in proportion to the root of n. An epoch stays as long. Of several labels the
    rarest counts."""
    oversample: Annotated[float, Field(gt=0, le=1)] | None = None
    """Draw the images of rare classes several times an epoch, augmented anew each time, until each class has at least
    this part of the largest class's images. An epoch gets longer."""

    @property
    def multi_label(self) -> bool:
        """Returns whether an image may show several classes."""
        return False

    @model_validator(mode="after")
    def _one_balance(self) -> "CommonData":
        if self.oversample is not None and self.sampling != "natural":
            raise ValueError(f"oversample and sampling: {self.sampling} are alternatives; keep one")
        return self


class SplitData(CommonData):
    """What sources have in common that may come without a val."""

    val_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Part of each class's training images that is held out as val, at least one and never all, where the data have
    no val of their own."""
    split_seed: Annotated[int, Bits64, OnlyWith(("val_fraction",))] = 0
    """Decides which ones; independent of experiment.seed, so that runs with several seeds can be compared."""


class FolderData(SplitData):
    """A folder with train, perhaps val (or validation) and test, each with one folder of images a class."""

    source: Literal["folder"]
    """Kind of data set."""
    root: AbsolutePath
    """The folder that holds train and val."""
    extensions: Annotated[list[Annotated[str, Field(pattern=r"^\.\S+$")]], Field(min_length=1)] = [
        ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif",
    ]  # fmt: skip
    """Endings of files that are images, in any case; other files are left alone."""


Column = Annotated[str, Field(min_length=1)]


class CsvFiles(Section):
    """A table for each split."""

    train: AbsolutePath
    """Images to train on."""
    val: AbsolutePath | None = None
    """Held-out images."""
    test: AbsolutePath | None = None
    """Images for the end."""


class CsvData(SplitData):
    """Images that a CSV file lists, in UTF-8 with a header line."""

    source: Literal["csv"]
    """Kind of data set."""
    root: AbsolutePath
    """The folder that paths in the table start from."""
    csv: AbsolutePath | CsvFiles
    """The table, or one for each split: {train: ..., val: ..., test: ...}."""
    path_column: Column = "file"
    """Column with an image's path."""
    label_columns: Annotated[list[Column], Field(min_length=1)]
    """One: the column with the image's class. Several: classes of which an image may show any number, each a column
    of 0 and 1."""
    label_separator: Annotated[str, Field(min_length=1)] | None = None
    """What stands between several classes in the one label column ('cod|herring'); an empty cell is none of them."""
    split_column: Column | None = None
    """Column that says train, val (or validation) or test; null: all is for training."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    """What separates the columns."""
    classes: Annotated[list[Column], Field(min_length=1)] | None = None
    """The classes in the order of their numbers; null: those of the training images, sorted, numbers as numbers."""

    @model_validator(mode="after")
    def _fits_together(self) -> "CsvData":
        given = [key for key in ("label_separator", "classes") if getattr(self, key) is not None]
        if given and len(self.label_columns) > 1:
            raise ValueError(f"{given[0]} is for a single label column; with several, they are the classes")
        names = self.label_columns if len(self.label_columns) > 1 else self.classes or []
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"the class {twice[0]!r} is named twice")
        if isinstance(self.csv, CsvFiles):
            if self.split_column is not None:
                raise ValueError("split_column is for a single table; csv already names one for each split")
            if self.val_fraction is not None and self.csv.val is not None:
                raise ValueError("val_fraction and csv.val are alternatives; keep one")
        return self

    @property
    def multi_label(self) -> bool:
        """Returns whether an image may show several classes."""
        return len(self.label_columns) > 1 or self.label_separator is not None


class ShardData(SplitData):
    """Images packed into tar files, by `python -m tools.pack` or as WebDataset has them."""

    source: Literal["shards"]
    """Kind of data set."""
    root: AbsolutePath
    """The folder of the tar files."""
    stage: bool = False
    """Copy them first to the folder that SLURM_TMPDIR or TMPDIR names, once a node; what does not fit stays."""


ArraySource = Literal["cifar10", "cifar100", "mnist", "fashion_mnist", "kmnist", "svhn", "stl10", "usps"]
TINY = ("digits", *get_args(ArraySource))
"""Sources of images so small that none of their edges is cut off."""
FileSource = Literal[
    "caltech101", "caltech256", "celeba", "country211", "dtd", "eurosat", "fgvc_aircraft", "flowers102", "food101",
    "gtsrb", "imagenette", "oxford_iiit_pet", "places365", "places365_small", "rendered_sst2", "stanford_cars",
    "sun397",
]  # fmt: skip


class TorchvisionData(SplitData):
    """One of torchvision's data sets.

    Its own val serves as val; without one it is its test, and with val_fraction a part of its training images.
    """

    source: Literal[ArraySource, FileSource]
    """Kind of data set."""
    root: AbsolutePath
    """Folder that holds (or is to hold) the files as torchvision lays them out."""
    download: bool = False
    """Fetch the files when they are not there."""

    @property
    def multi_label(self) -> bool:
        """Returns whether an image may show several classes."""
        return self.source == "celeba"


class DigitsData(CommonData):
    """The 1,797 handwritten digits of 8x8 pixels that come with scikit-learn: 1,437 to train on, 360 held out (val)."""

    source: Literal["digits"]
    """Kind of data set."""


DataConfig = Annotated[FolderData | CsvData | ShardData | TorchvisionData | DigitsData, Variants("source")]
