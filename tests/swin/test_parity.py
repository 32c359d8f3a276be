"""Same weights, same image: logits and gradients equal timm's and torchvision's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision.models
from torch import Tensor, nn

import swin
from swin import SwinConfig, SwinTransformer, load_swin_weights
from swin.names import to_own_names


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference as a share of the largest value."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def randomised(model: nn.Module) -> nn.Module:
    """Norms, biases and tables away from their initial values, which would hide a mistaken place."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def compare(theirs: nn.Module, ours: SwinTransformer, x: Tensor, gradients: bool = True) -> None:
    load_swin_weights(ours.eval(), theirs.state_dict())
    expected, logits = theirs(x), ours(x)
    assert relative(logits, expected) < 1e-5
    if not gradients:
        return
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    (expected * weights).sum().backward()
    (logits * weights).sum().backward()
    named = {name: parameter.grad for name, parameter in theirs.named_parameters() if parameter.grad is not None}
    _, wanted = to_own_names(named)
    found = dict(ours.named_parameters())
    assert wanted.keys() == found.keys()
    for name, gradient in wanted.items():
        mine = found[name].grad
        assert mine is not None and (mine - gradient).norm() <= 1e-4 * gradient.norm(), name


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_timm(size: str) -> None:
    theirs = randomised(timm.create_model(f"swin_{size}_patch4_window7_224", pretrained=False))
    compare(theirs, getattr(swin, f"swin_{size}")(), torch.randn(1, 3, 224, 224))


@pytest.mark.parametrize(
    ("build", "size"),
    [
        (torchvision.models.swin_t, "tiny"),
        (torchvision.models.swin_s, "small"),
        (torchvision.models.swin_b, "base"),
    ],
)
def test_torchvision(build: Callable[..., nn.Module], size: str) -> None:
    compare(randomised(build(weights=None)), getattr(swin, f"swin_{size}")(), torch.randn(1, 3, 224, 224))


def small_torchvision() -> nn.Module:
    return randomised(
        torchvision.models.SwinTransformer(
            patch_size=[4, 4], embed_dim=24, depths=[2, 2, 2], num_heads=[2, 4, 8], window_size=[7, 7], num_classes=5
        )
    )


@pytest.mark.parametrize("size", [(224, 224), (225, 301), (333, 800), (336, 336), (32, 32), (64, 97)])
def test_odd_sizes_equal_torchvision(size: tuple[int, int]) -> None:
    ours = SwinTransformer(SwinConfig(embed_dim=24, depths=(2, 2, 2), num_heads=(2, 4, 8), num_classes=5))
    compare(small_torchvision(), ours, torch.randn(2, 3, *size))


@pytest.mark.parametrize(("size", "window"), [(56, 7), (32, 4), (96, 6), (192, 12), ((28, 112), 7)])
def test_hinted_sizes_equal_timm(size: int | tuple[int, int], window: int) -> None:
    """Where nothing is padded; a map smaller than the window shrinks it, an axis of one window is not shifted."""
    shape: dict[str, Any] = {"embed_dim": 24, "depths": (2, 2, 2), "num_heads": (2, 4, 8), "num_classes": 5}
    theirs = randomised(timm.models.SwinTransformer(img_size=size, window_size=window, **shape))
    ours = SwinTransformer(SwinConfig(img_size=size, window_size=window, **shape))
    height, width = (size, size) if isinstance(size, int) else size
    compare(theirs, ours, torch.randn(2, 3, height, width))


def test_digits_size_with_small_patches() -> None:
    shape: dict[str, Any] = {
        "embed_dim": 24,
        "depths": (2, 2, 2),
        "num_heads": (2, 4, 8),
        "num_classes": 5,
        "patch_size": 2,
    }
    theirs = randomised(timm.models.SwinTransformer(img_size=32, window_size=4, in_chans=1, **shape))
    ours = SwinTransformer(SwinConfig(img_size=32, window_size=4, in_chans=1, **shape))
    compare(theirs, ours, torch.randn(3, 1, 32, 32))
