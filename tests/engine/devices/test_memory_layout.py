"""Which models are run in channels-last layout."""

from __future__ import annotations

import pytest
import timm

from engine.devices.memory_layout import uses_channels_last
from swin import swin_tiny


@pytest.mark.parametrize(
    "name, convolutional",
    [
        ("resnet50", True),
        ("tf_efficientnet_lite0", True),
        ("mobilenetv3_large_100", True),
        ("convnext_tiny", True),
        ("regnety_004", True),
        ("vit_tiny_patch16_224", False),
        ("swin_tiny_patch4_window7_224", False),
    ],
)
def test_auto_is_on_for_convolutional_models(name: str, convolutional: bool) -> None:
    model = timm.create_model(name)
    assert uses_channels_last("auto", model) == convolutional
    assert uses_channels_last(not convolutional, model) == (not convolutional), "what is configured wins"


def test_our_swin_is_not_convolutional() -> None:
    assert not uses_channels_last("auto", swin_tiny())
