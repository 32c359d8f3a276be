from __future__ import annotations

import pytest

from engine.datasets.dataset import preprocessing_of
from engine.datasets.sections import DigitsData, FolderData
from engine.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD

SWIN, LITE = None, "tf_efficientnet_lite0"


def folder(tmp_path, **keys) -> FolderData:
    return FolderData(source="folder", root=tmp_path, **keys)


def test_our_models_get_imagenets_values(tmp_path):
    found = preprocessing_of(folder(tmp_path), SWIN)
    assert (found.mean, found.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert (found.height, found.width, found.resize) == (224, 224, "crop")
    assert (found.crop_pct, found.interpolation) == (0.875, "bicubic")


@pytest.mark.parametrize(
    ("name", "mean", "crop_pct"),
    [
        ("tf_efficientnet_lite0", (0.5, 0.5, 0.5), 0.875),
        ("resnet50.a1_in1k", IMAGENET_MEAN, 0.95),
        ("resnet50.tv_in1k", IMAGENET_MEAN, 0.875),
    ],
)
def test_timms_models_get_what_timm_publishes(tmp_path, name, mean, crop_pct):
    found = preprocessing_of(folder(tmp_path), name)
    assert found.mean == mean
    assert found.crop_pct == crop_pct


def test_what_is_given_wins(tmp_path):
    given = {"mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0), "interpolation": "bilinear"}
    found = preprocessing_of(folder(tmp_path, **given, image_size=(160, 96), resize="squash"), LITE)
    assert {name: getattr(found, name) for name in given} == given
    assert (found.height, found.width, found.resize) == (160, 96, "squash")
    assert preprocessing_of(folder(tmp_path, crop_pct=1.0), LITE).crop_pct == 1.0


def test_all_of_a_tiny_image_is_kept():
    assert preprocessing_of(DigitsData(source="digits", image_size=32), SWIN).crop_pct == 1.0
    assert preprocessing_of(DigitsData(source="digits", crop_pct=0.8), SWIN).crop_pct == 0.8
