"""Same weights, same image: logits and gradients equal timm's and torchvision's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import pytest
import timm
import torch
import torchvision.models
from torch import Tensor, nn

import swin
from engine.distributed.ranks import Ranks
from swin import SwinConfig, SwinTransformer, load_swin_weights
from swin.names import to_own_names
from tests.distributed import run_ranks


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


def compare(theirs: nn.Module, build: Callable[[], SwinTransformer], x: Tensor) -> None:
    """One model after the other, and without what is no longer needed: large ones would not fit in side by side."""
    expected = theirs(x)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    (expected * weights).sum().backward()
    named = {name: parameter.grad for name, parameter in theirs.named_parameters() if parameter.grad is not None}
    _, wanted = to_own_names(named)
    ours = build().eval()
    load_swin_weights(ours, theirs.state_dict())
    for parameter in theirs.parameters():
        parameter.data, parameter.grad = torch.empty(0), None
    named.clear()
    logits = ours(x)
    assert relative(logits, expected.detach()) < 1e-5
    assert wanted.keys() == dict(ours.named_parameters()).keys()
    differing = []

    def check(name: str, parameter: nn.Parameter) -> None:
        mine, gradient = parameter.grad, wanted.pop(name)
        if mine is None or not (mine - gradient).norm() <= 1e-4 * gradient.norm():
            differing.append(name)
        parameter.grad = None

    for name, parameter in ours.named_parameters():
        parameter.register_post_accumulate_grad_hook(partial(check, name))
    (logits * weights).sum().backward()
    assert not differing
    assert not wanted, "without a gradient"


SIZES = [
    ("tiny", 48),
    ("small", 48),
    ("base", 32),
    pytest.param("small", 96, marks=pytest.mark.full),
    pytest.param("base", 128, marks=pytest.mark.full),
]
"""Names and widths: narrower ones need a tenth of the time and memory."""


def timms(size: str, **changes: Any) -> nn.Module:
    return timm.create_model(f"swin_{size}_patch4_window7_224", pretrained=False, **changes)


def torchvisions(size: str, **changes: Any) -> nn.Module:
    """Its builders refuse another width."""
    build = getattr(torchvision.models, f"swin_{size[0]}")
    with mock.patch.object(torchvision.models.swin_transformer, "SwinTransformer", partial(changed, changes)):
        return build(weights=None)


def changed(changes: dict[str, Any], **shape: Any) -> nn.Module:
    return torchvision.models.SwinTransformer(**{**shape, **changes})


@pytest.mark.parametrize("build", [timms, torchvisions])
@pytest.mark.parametrize(("size", "width"), SIZES)
def test_a_published_size_equals_theirs(size: str, width: int, build: Callable[..., nn.Module]) -> None:
    ours = partial(getattr(swin, f"swin_{size}"), embed_dim=width)
    compare(randomised(build(size, embed_dim=width)), ours, torch.randn(1, 3, 224, 224))


def compare_swin_t(ranks: Ranks, build: str) -> None:
    torch.manual_seed(0)
    compare(randomised(globals()[build]("tiny")), swin.swin_tiny, torch.randn(1, 3, 224, 224))


@pytest.mark.parametrize("build", ["timms", "torchvisions"])
def test_swin_t_equals_theirs(build: str) -> None:
    """In a process of its own, whose memory goes with it."""
    run_ranks(1, compare_swin_t, build)


@pytest.mark.parametrize("build", [timms, torchvisions])
@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_a_published_size_has_the_parameters_of_theirs(size: str, build: Callable[..., nn.Module]) -> None:
    with torch.device("meta"):
        theirs, ours = build(size), getattr(swin, f"swin_{size}")()
    _, wanted = to_own_names(dict(theirs.named_parameters()))
    shapes = [{name: parameter.shape for name, parameter in each} for each in (wanted.items(), ours.named_parameters())]
    assert shapes[0] == shapes[1]


def small_torchvision() -> nn.Module:
    return randomised(
        torchvision.models.SwinTransformer(
            patch_size=[4, 4], embed_dim=24, depths=[2, 2, 2], num_heads=[2, 4, 8], window_size=[7, 7], num_classes=5
        )
    )


@pytest.mark.parametrize("size", [(224, 224), (225, 301), (333, 800), (336, 336), (32, 32), (64, 97)])
def test_odd_sizes_equal_torchvision(size: tuple[int, int]) -> None:
    config = SwinConfig(embed_dim=24, depths=(2, 2, 2), num_heads=(2, 4, 8), num_classes=5)
    batch = 1 if max(size) > 500 else 2
    compare(small_torchvision(), lambda: SwinTransformer(config), torch.randn(batch, 3, *size))


@pytest.mark.parametrize(("size", "window"), [(56, 7), (32, 4), (96, 6), (192, 12), ((28, 112), 7)])
def test_hinted_sizes_equal_timm(size: int | tuple[int, int], window: int) -> None:
    """Where nothing is padded; a map smaller than the window shrinks it, an axis of one window is not shifted."""
    shape: dict[str, Any] = {"embed_dim": 24, "depths": (2, 2, 2), "num_heads": (2, 4, 8), "num_classes": 5}
    theirs = randomised(timm.models.SwinTransformer(img_size=size, window_size=window, **shape))
    config = SwinConfig(img_size=size, window_size=window, **shape)
    height, width = (size, size) if isinstance(size, int) else size
    compare(theirs, lambda: SwinTransformer(config), torch.randn(2, 3, height, width))


def test_digits_size_with_small_patches() -> None:
    shape: dict[str, Any] = {
        "embed_dim": 24,
        "depths": (2, 2, 2),
        "num_heads": (2, 4, 8),
        "num_classes": 5,
        "patch_size": 2,
    }
    theirs = randomised(timm.models.SwinTransformer(img_size=32, window_size=4, in_chans=1, **shape))
    config = SwinConfig(img_size=32, window_size=4, in_chans=1, **shape)
    compare(theirs, lambda: SwinTransformer(config), torch.randn(3, 1, 32, 32))
