from __future__ import annotations

import hashlib

import numpy as np
import pytest

from engine.datasets.dataset import open_images
from engine.datasets.labelled import ArrayImages, class_counts, odd_labels, open_digits
from engine.datasets.sections import DigitsData
from engine.errors import UserError


def test_digits_are_split_once_for_all():
    train, val = open_digits("train"), open_digits("val")
    assert (len(train), len(val)) == (1437, 360)
    assert train.classes == val.classes == [str(digit) for digit in range(10)]
    of_class = np.bincount(train.labels) + np.bincount(val.labels)
    assert of_class.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.abs(np.bincount(val.labels) - of_class * 360 / 1797).max() < 1
    assert hashlib.sha256(val.labels.tobytes()).hexdigest()[:16] == "89df99af78caf580"


def test_digits_hold_every_image_of_scikit_learn_once():
    from sklearn.datasets import load_digits

    ours = [np.asarray(part.image(k))[..., 0] for part in map(open_digits, ("train", "val")) for k in range(len(part))]
    theirs = np.round(load_digits().images * 255 / 16).astype(np.uint8)
    assert sorted(image.tobytes() for image in ours) == sorted(image.tobytes() for image in theirs)


def test_a_digit_is_a_grey_rgb_image_of_8_by_8():
    image = open_digits("val").image(3)
    assert image.pixels().shape == (8, 8, 3)
    values = np.asarray(image)
    assert (values[..., 0] == values[..., 2]).all()
    assert values.max() == 255


def test_digits_have_no_test_split():
    with pytest.raises(UserError, match=r"data\.source: digits has no test split besides val"):
        open_images(DigitsData(source="digits"), "test")


def test_images_of_each_class_are_counted():
    assert class_counts(open_digits("val")).tolist() == np.bincount(open_digits("val").labels).tolist()
    several = ArrayImages(["a", "b", "c"], np.array([[1, 1, 0], [1, 0, 0]], np.uint8), np.zeros((2, 4, 4), np.uint8))
    assert several.multi_label and not open_digits("val").multi_label
    assert class_counts(several).tolist() == [2, 1, 0]
    assert class_counts(several).dtype == np.int64


def test_one_class_alone_is_told():
    def images(*labels):
        return ArrayImages(["a", "b"], np.array(labels), np.zeros((len(labels), 4, 4), np.uint8))

    assert odd_labels(images(0, 1), images(1, 1, 1)) == ["data: all 3 images of val are of one class, b, of 2"]
    assert odd_labels(images(1, 1), images(0)) == ["data: no training images of 1 of 2 classes: a"]
    assert not odd_labels(images(0, 1), images(1, 0)) and not odd_labels(images(0, 1), images(1))
