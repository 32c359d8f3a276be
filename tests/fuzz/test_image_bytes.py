"""Image files of any bytes: an RGB image of a sane size, resized as asked, or a message that names the file."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from engine.data.batch_plan import Draw
from engine.data.names import Names
from engine.datasets.labelled import FileImages
from engine.datasets.preflight import broken_images
from engine.images.image_io import read_image
from engine.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from engine.images.reading import ImageFileReader
from engine.images.transforms import EvalTransform
from tests.fuzz.examples import Hunt, hunted, refused
from tests.fuzz.image_files import damaged, files
from tests.memory import MB, forget_peak, peak

MOST_PIXELS = 178_956_970
PER_PIXEL = 13
"""Bytes: Pillow's four of the picture in the file, of the same upright, and of what is made of it."""
SLACK = 100 * MB
TRANSFORMS = [
    EvalTransform(Preprocessing(8, 12, resize, 0.875, "bicubic", IMAGENET_MEAN, IMAGENET_STD))
    for resize in ("crop", "squash", "pad")
]


@hunted(250, 10000)
def test_an_image_or_a_message_that_names_the_file(hunt: Hunt, tmp_path: Path) -> None:
    def seen(file: Path) -> tuple[str, int, int]:
        image = read_image(file)
        return image.mode, *image.size

    @hunt(
        damaged() | files | st.binary(max_size=64),
        st.sampled_from(["a.jpg", "a.png", "a.gif", "a.tif", "a"]),
        st.sampled_from(TRANSFORMS),
    )
    def check(content: bytes, name: str, transform: EvalTransform) -> None:
        file = tmp_path / name
        file.write_bytes(content)
        before = forget_peak()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image, message = refused(lambda: seen(file))
            broken = broken_images(FileImages(tmp_path, ["a"], np.zeros(1, np.int64), [name]))
            sample = ImageFileReader(Names([str(file)]), transform)[Draw(0, 0, 0)]
        assert sample["fault"] == message and sample["image"].shape == (3, 8, 12)
        if image is None:
            assert message.startswith(f"{file}: ")
            assert peak() - before < 1000 * MB
        else:
            mode, width, height = image
            assert not broken, broken
            assert mode == "RGB" and min(width, height) > 0 and width * height <= MOST_PIXELS
            assert sample["size"].tolist() == [width, height]
            assert peak() - before < PER_PIXEL * width * height + SLACK
