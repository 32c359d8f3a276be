"""Pictures that show the same are found, whatever their files; others are not."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from engine.errors import UserError
from engine.images import near_duplicates
from engine.images.lazy_image import LazyImage
from engine.images.near_duplicates import hash_images, near_pairs, splits_alike


class Shown:
    """Images by number; a text is the error of one that cannot be read."""

    def __init__(self, *images: Image.Image | str) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> LazyImage:
        found = self.images[index]
        if isinstance(found, str):
            raise UserError(found)
        return LazyImage.of(found)

    def name(self, index: int) -> str:
        return str(index)


def picture(seed: int, side: int = 120) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)


def test_the_same_picture_scaled_or_brightened_is_found_and_no_other() -> None:
    train = hash_images(Shown(*(picture(seed) for seed in range(40))))
    changed = [picture(7).resize((64, 50)), ImageEnhance.Brightness(picture(30)).enhance(0.9)]
    val = hash_images(Shown(picture(100), *changed, picture(101)))
    assert near_pairs(train, val) == [(1, 7), (2, 30)]
    assert splits_alike({"train": train, "val": val, "test": val})[("test", "val")] == [(n, n) for n in range(4)]


def test_images_that_say_nothing_are_left_out() -> None:
    blank, tiny = Image.new("RGB", (64, 64), "white"), picture(1, 16)
    train, val = hash_images(Shown(blank, tiny)), hash_images(Shown(blank, tiny))
    assert not len(train.numbers) and near_pairs(train, val) == [] and train.looked_at == 2


def test_what_cannot_be_decoded_is_told() -> None:
    assert hash_images(Shown(picture(0), "a.jpg: broken")).faults == {1: "a.jpg: broken"}


def test_of_many_images_some_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "HASHED", 5)
    found = hash_images(Shown(*(picture(seed) for seed in range(20))))
    assert found.looked_at == 5 and found.numbers.tolist() == [0, 4, 8, 12, 16]
