"""The configured backbone."""

from __future__ import annotations

from typing import Any

from detection.model.backbone_base import Backbone
from detection.model.sections import DetectorConfig, SwinDetector
from detection.model.swin_backbone import SWIN_LAYOUTS
from detection.model.timm_backbone import resnet50_a, resnet50_b, timm_maps


def build_backbone(config: DetectorConfig, image_size: tuple[int, int], published: bool = False) -> Backbone:
    """Builds the backbone, initialised from torch's global generator.

    Args:
        config: Its name and options.
        image_size: Height and width of the images; only models with position embeddings are bound to it.
        published: Start from the weights that timm publishes; not for our Swin.

    Raises:
        UserError: timm cannot make the model so, or it has no maps at strides 8, 16 and 32; or its published weights
            are not to be had.
    """
    if isinstance(config, SwinDetector):
        return SWIN_LAYOUTS[config.layout](config.swin_shape())
    options: dict[str, Any] = {"published": published}
    if config.drop_path is not None:
        options["drop_path_rate"] = config.drop_path
    if config.backbone == "resnet50_a":
        return resnet50_a(options)
    if config.backbone == "resnet50_b":
        return resnet50_b(options)
    return timm_maps(config.timm_name, image_size, options)
