"""Compiling block by block: which modules, how many graphs, the same numbers, the same names."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch._dynamo.utils import counters

from engine.config.training import TrainingConfig
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.model.compiling import compile_for_training, repeated_blocks, uncompiled
from engine.model.wrap import wrap_model
from swin import swin_tiny

CPU = Ranks(Layout(), torch.device("cpu"))
SWIN = {"num_classes": 5, "embed_dim": 8, "num_heads": (1, 2), "window_size": 2}


def swin(*depths: int, drop_path: float = 0.2) -> nn.Module:
    torch.manual_seed(0)
    return swin_tiny(depths=depths, drop_path=drop_path, **SWIN)


def vit(depth: int, **fields: Any) -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", img_size=32, depth=depth, embed_dim=12, num_heads=2, **fields)


@pytest.mark.parametrize(
    "name, kind, count",
    [
        ("resnet50", "Bottleneck", 16),
        ("tf_efficientnet_lite0", "InvertedResidual", 15),
        ("convnext_tiny", "ConvNeXtBlock", 18),
        ("vit_tiny_patch16_224", "Block", 12),
        ("densenet121", "", 0),  # none of its layers is like another
    ],
)
def test_blocks_of_common_models_are_found(name: str, kind: str, count: int) -> None:
    with torch.device("meta"):
        blocks = repeated_blocks(timm.create_model(name))
    assert [type(block).__name__ for block in blocks] == [kind] * count


@pytest.mark.parametrize("build", [lambda: vit(2), lambda: nn.Sequential(nn.Linear(2, 2))], ids=["blocks", "whole"])
def test_modes_reach_the_compiler(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda code, **options: modes.append(options["mode"]) or code)
    for wanted in (True, "default", "reduce-overhead", "max-autotune", False):
        wrap_model(build(), TrainingConfig(compile=wanted), CPU)
    assert list(dict.fromkeys(modes)) == ["default", "reduce-overhead", "max-autotune"]


def graphs(model: nn.Module) -> int:
    """How many pieces of code are made for two training steps."""
    counters.clear()
    network = compile_for_training(model.train(), "default", backend="eager")
    for _ in range(2):
        network(torch.zeros(2, 3, 32, 32)).sum().backward()
    return counters["stats"]["unique_graphs"]


def test_the_number_of_graphs_does_not_grow_with_the_depth() -> None:
    # Two stages of regular and shifted windows, and the first block, which drops nothing.
    assert graphs(swin(4, 4)) == graphs(swin(4, 12)) == 5
    assert graphs(vit(2)) == graphs(vit(12)) == 1


def test_more_variants_than_torch_keeps_by_itself_are_compiled() -> None:
    assert graphs(vit(12, drop_path_rate=0.1)) == 12  # a timm block's probability is a constant of its code


def gradients(model: nn.Module, network: nn.Module) -> list[torch.Tensor]:
    torch.manual_seed(1)
    network(torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)).square().sum().backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("recompute", [False, True])
def test_compiled_blocks_compute_the_same_under_the_same_names(recompute: bool) -> None:
    models = [swin(2, 2) for _ in range(2)]
    for model in models:
        model.set_grad_checkpointing(recompute)  # type: ignore[operator]
    network = compile_for_training(models[1], "default", backend="aot_eager")
    assert network is models[1]
    assert models[0].state_dict().keys() == models[1].state_dict().keys()
    for ours, theirs in zip(gradients(models[0], models[0]), gradients(models[1], network), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_evaluations_and_copies_run_uncompiled() -> None:
    model = compile_for_training(swin(2, 2), "default", backend="eager").eval()
    counters.clear()
    with uncompiled(), torch.no_grad():
        model(torch.zeros(3, 3, 32, 32))
    copy.deepcopy(model)(torch.zeros(3, 3, 32, 32))
    assert counters["stats"]["unique_graphs"] == 0
    model(torch.zeros(3, 3, 32, 32))
    assert counters["stats"]["unique_graphs"] > 0
