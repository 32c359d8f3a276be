"""The `data` section of detection: where images and boxes come from, and the size that the model sees them at."""

from typing import Annotated, Literal

from pydantic import model_validator

from engine.config.paths import AbsolutePath
from engine.config.section import Count, Few, PartRange, Section, Seed, Size, Variants
from engine.images.sections import ImageData, ImageSize, Interpolation


class CommonData(ImageData):
    """What every source of images has in common."""

    image_size: ImageSize = 300
    """Pixels of the model's input: one number, or [height, width]; images are stretched to it."""
    interpolation: Interpolation = "bilinear"
    """Filter for resizing."""


class SplitFiles(Section):
    """One split of a COCO-format data set; paths are taken from `data.root`."""

    images: str
    """Folder of the images."""
    annotations: str
    """JSON file with `images`, `annotations` and `categories`."""


class CocoData(CommonData):
    """A data set in COCO's format: a folder of images and a JSON file for each split."""

    source: Literal["coco"]
    """Kind of data set."""
    root: AbsolutePath
    """Folder from which the paths below are taken."""
    train: SplitFiles
    """What is trained on."""
    val: SplitFiles
    """What is evaluated during training."""
    test: SplitFiles | None = None
    """What `--split test` evaluates; null: there is none."""


class ShardData(CommonData):
    """Images with boxes that `python -m tools.pack` has packed into tar files."""

    source: Literal["shards"]
    """Kind of data set."""
    root: AbsolutePath
    """The folder of the tar files."""
    stage: bool = False
    """Copy them first to the folder that SLURM_TMPDIR or TMPDIR names, once a node; what does not fit stays."""


Shape = Literal["circle", "square", "triangle", "star", "ring", "cross"]


class ShapesData(CommonData):
    """Images drawn on the spot: coloured shapes on photographs or noise. Needs no files."""

    source: Literal["shapes"]
    """Kind of data set."""
    classes: list[Shape] = ["circle", "square", "triangle", "star", "ring", "cross"]
    """Shapes that are drawn."""
    train_images: Count = 1000
    """Images of train."""
    val_images: Count = 200
    """Images of val."""
    canvas_size: tuple[Size, Size] = (160, 200)
    """[height, width] in pixels of each image."""
    max_objects: Few = 6
    """Most shapes on an image; their number is drawn from 0 to this."""
    scale: PartRange = (0.12, 0.5)
    """Least and largest diameter of a shape, as a part of the image's shorter side."""
    background: Literal["photos", "noise", "mixed"] = "mixed"
    """Parts of scikit-learn's two photographs, noise of several sizes, or either at random."""
    seed: Seed = 0
    """Decides all images; not the same as `experiment.seed`, so that runs of other seeds see the same data."""

    @model_validator(mode="after")
    def _possible(self) -> "ShapesData":
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError("classes: name at least one shape, and none twice")
        if self.scale[0] * min(self.canvas_size) < 4:
            raise ValueError(
                f"scale: the smallest shape has fewer than 4 pixels on a canvas_size of {self.canvas_size}"
            )
        return self


DataConfig = Annotated[CocoData | ShapesData | ShardData, Variants("source")]
