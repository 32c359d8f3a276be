"""SSD (Liu et al., ECCV 2016): backbone, neck, head, and the priors that go with the maps.

B images, A priors of an image, K outputs of a prior.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from timm.layers import freeze_batch_norm_2d
from timm.models import group_parameters
from torch import Tensor, nn

from detection.model.backbone import build_backbone
from detection.model.backbone_base import Backbone
from detection.model.head import SSDHead
from detection.model.layers import Size, size_of
from detection.model.necks import build_neck
from detection.model.priors import make_priors
from detection.model.sections import DetectorConfig, PriorsConfig, TimmDetector
from detection.model.weights import load_start
from engine.config.training import FinetuneConfig
from engine.errors import UserError
from engine.model.batch_norm import uses_batch_norm
from swin.windows import being_recorded

BODY = "backbone.body."
"""What the names of the backbone's own parameters, those that classifiers have too, begin with."""

KEPT_SIZES = 16
"""Sizes of images whose priors a model keeps."""


class SSDOutput(NamedTuple):
    """What the model says of a batch, row by row in the order of the priors."""

    logits: Tensor
    """(B, A, K), before softmax or sigmoid."""
    codes: Tensor
    """(B, A, 4): each box relative to its prior."""
    priors: Tensor
    """(A, 4) float32: centre x, centre y, width, height, as parts of the image. Shared: not to be written to."""


class SSD(nn.Module):
    """(B, 3, H, W) -> :class:`SSDOutput`, for images of any size.

    Whether the first of the K outputs means background is for the loss to know: with a softmax it does, with sigmoids
    there is no such output.
    """

    def __init__(self, backbone: Backbone, neck: nn.Module, head: SSDHead, priors: PriorsConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self._priors_config = priors
        self._priors: dict[tuple[Any, ...], Tensor] = {}

    def forward(self, images: Tensor) -> SSDOutput:
        maps = self.neck(self.backbone(images))
        logits, codes = self.head(maps)
        return SSDOutput(logits, codes, self._priors_of([size_of(x) for x in maps], size_of(images), images.device))

    def _priors_of(self, map_sizes: list[Size], image_size: Size, device: torch.device) -> Tensor:
        """The priors, made once for each size; anew for a compiler or exporter, whose graph must not own a tensor."""
        if being_recorded():
            return make_priors(self._priors_config, map_sizes, image_size, device)
        key = (*map_sizes, image_size, device)
        if key not in self._priors:
            if len(self._priors) == KEPT_SIZES:
                del self._priors[next(iter(self._priors))]
            with torch.inference_mode(False):  # what is made while evaluating must serve training too
                self._priors[key] = make_priors(self._priors_config, map_sizes, image_size, device)
        return self._priors[key]

    # -- what the engine asks of any model -------------------------------------------------------------------------

    def no_weight_decay(self) -> set[str]:
        """Returns names of parameters without weight decay, besides vectors: those that the body names."""
        return {BODY + name for name in getattr(self.backbone.body, "no_weight_decay", set)()}

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Returns the depth of each parameter for layer-wise rates: the body's layers, and one for all behind them.

        Args:
            coarse: Counts whole stages, where the body knows them.
        """
        depths = {BODY + name: depth for name, depth in _depths(self.backbone.body, coarse).items()}
        behind = max(depths.values()) + 1
        return lambda name: depths.get(name, behind)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes the body's activations in the backward pass. ``AttributeError`` where the body cannot."""
        self.backbone.body.set_grad_checkpointing(enable)  # type: ignore[operator]


def _depths(body: nn.Module, coarse: bool) -> dict[str, int]:
    """The layer of each parameter of a body, from 0: as it says itself, else block by block in order."""
    if hasattr(body, "group_matcher"):
        matcher = body.group_matcher(coarse=coarse)  # type: ignore[operator]
        return group_parameters(body, matcher, reverse=True)
    blocks = {}
    for name, _ in body.named_parameters():
        stage, *below = name.split(".")[: 1 if coarse else 2]
        blocks[name] = (stage, *filter(str.isdigit, below))
    order = list(dict.fromkeys(blocks.values()))
    return {name: order.index(block) for name, block in blocks.items()}


def build_detector(
    config: DetectorConfig,
    finetune: FinetuneConfig,
    num_outputs: int,
    image_size: tuple[int, int],
    prior_probability: float | None = None,
    classes: Sequence[str] | None = None,
) -> SSD:
    """Builds the detector on the CPU, initialised from torch's global generator, with the weights it starts from.

    Args:
        num_outputs: Outputs of a prior: the classes, and one for the background where the loss is a softmax.
        image_size: Height and width of training images.
        prior_probability: For sigmoid losses, see :class:`SSDHead`.
        classes: Their names, see :func:`detection.model.weights.load_start`.

    Raises:
        UserError: the weights cannot be read or do not fit, or timm cannot make the backbone.
    """
    backbone = build_backbone(config, image_size, published=finetune.weights == "timm")
    neck = build_neck(config.neck, backbone.channels, config.neck_channels, config.neck_norm)
    head = SSDHead(neck.channels, config.priors.per_cell, num_outputs, prior_probability)
    model = SSD(backbone, neck, head, config.priors)
    if isinstance(config, TimmDetector) and config.frozen_batchnorm:
        if not uses_batch_norm(backbone.body):
            raise UserError(f"detection.frozen_batchnorm: {config.backbone} has no batch norm; set it to false")
        backbone.body = freeze_batch_norm_2d(backbone.body)
    if isinstance(finetune.weights, Path):
        load_start(model, finetune.weights, classes)
    return model
