from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diffusion.model.config import TINY
from diffusion.model.swin_unet import SwinUNet
from diffusion.model.weights import load_encoder
from swin.model import SwinTransformer
from swin.weights import WeightsError

SHAPE = replace(TINY, embed_dim=16, depths=(2, 2), num_heads=(2, 4), img_size=32, num_classes=10)


def test_a_classifiers_stages_become_the_way_down() -> None:
    torch.manual_seed(0)
    classifier, model = SwinTransformer(replace(SHAPE, num_classes=5, patch_norm=True)), SwinUNet(SHAPE)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = load_encoder(model, classifier.state_dict())
    own, theirs = model.state_dict(), classifier.state_dict()
    taken = {name for name in own if name.startswith(("layers.", "patch_embed.")) and "modulation" not in name}
    assert {name for name in own if not torch.equal(own[name], before[name])} <= taken
    assert all(torch.equal(own[name], theirs[name]) for name in taken)
    assert "layers.1.blocks.1.attn.qkv.weight" in report.loaded


def test_another_window_is_interpolated() -> None:
    classifier = SwinTransformer(replace(SHAPE, window_size=8, patch_norm=True))
    report = load_encoder(SwinUNet(SHAPE), classifier.state_dict())
    assert len(report.interpolated) == 4


def test_weights_of_another_shape_are_refused() -> None:
    classifier = SwinTransformer(replace(SHAPE, embed_dim=32, patch_norm=True))
    with pytest.raises(WeightsError, match="another shape"):
        load_encoder(SwinUNet(SHAPE), classifier.state_dict())
