"""What the model expects of an image."""

from __future__ import annotations

from engine.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD, resolve_preprocessing
from tests.detection.small import SHAPES, SWIN_SHAPE, config_of


def test_what_is_left_to_auto_is_the_backbones_own() -> None:
    config = config_of(detection={"backbone": "timm/tf_efficientnet_lite0"})
    found = resolve_preprocessing(config.data, config.detection.timm_name)
    assert (found.mean, found.std, found.size) == ((0.5,) * 3, (0.5,) * 3, (48, 48))
    config = config_of(detection={"backbone": "swin_a", "swin": SWIN_SHAPE})
    found = resolve_preprocessing(config.data, config.detection.timm_name)
    assert (found.mean, found.std) == (IMAGENET_MEAN, IMAGENET_STD)


def test_what_is_given_counts() -> None:
    own = {"mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 3.0], "image_size": [32, 64], "interpolation": "bicubic"}
    config = config_of(data={**SHAPES, **own})
    found = resolve_preprocessing(config.data, config.detection.timm_name)
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    assert (found.height, found.width, found.interpolation) == (32, 64, "bicubic")
