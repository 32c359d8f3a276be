"""Keys of the `data` section that all tasks share: the size and values that a model sees, and how samples are read."""

from typing import Annotated, Literal

from pydantic import Field

from engine.config.section import CountOrNone, Few, Positive, Probability, Section, Size

ImageSize = Size | tuple[Size, Size]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


class ImageData(Section):
    """What every source of images has in common."""

    image_size: ImageSize = 224
    """Pixels of the model's input: one number, or [height, width]."""
    interpolation: Interpolation | Literal["auto"] = "auto"
    """Filter for resizing; auto: the model's own, else bicubic."""
    decode: Literal["fast", "exact"] = "fast"
    """fast: decode JPEG files at a half, a quarter or an eighth where that leaves at least twice the pixels that are
    used, and resize as torch does; exact: decode them whole and resize as Pillow does, pixel for pixel."""
    mean: tuple[Probability, Probability, Probability] | Literal["auto"] = "auto"
    """What is subtracted from red, green and blue in [0, 1]; auto: the model's own, else ImageNet's."""
    std: tuple[Positive, Positive, Positive] | Literal["auto"] = "auto"
    """What they are divided by then; auto: the model's own, else ImageNet's."""
    drop_last: bool = True
    """Drop the images of an epoch that do not fill a global batch; false: train on them in a smaller one."""
    workers: Annotated[int, Field(ge=0, le=256)] | Literal["auto"] = "auto"
    """Processes that read images, for each rank; 0: the main process reads; auto: the rank's cores less one."""
    read_threads: Annotated[int, Field(ge=0, le=256)] | Literal["auto"] = "auto"
    """Threads of each of these processes that read the files of coming images, where reading one takes more than a
    millisecond; 0: none; auto: 16."""
    read_timeout_seconds: Annotated[float, Field(ge=0, le=86400)] = 120.0
    """How long a file is tried again while the storage fails (EIO, ESTALE, ETIMEDOUT)."""
    max_unreadable: CountOrNone = 0
    """Training images that cannot be read and are skipped; one more ends the run, as does one of val."""
    prefetch: Few = 2
    """Micro-batches that each worker keeps ready; fewer where all of these would take more than 2 GiB of a rank, or
    half of its part of what is free in /dev/shm."""
    multiprocessing_context: Literal["fork", "spawn", "forkserver"] | None = None
    """How workers are started; null: the platform's own way."""

    @property
    def size(self) -> tuple[int, int]:
        """Returns height and width of the model's input."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size
