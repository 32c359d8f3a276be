"""torch.compile for training: a model's repeated blocks one by one, or the whole where nothing repeats.

Compiling one block and using its code for all that are like it takes less time than the whole model, the less the
deeper that is, and nearly all of a deep model's work lies within its blocks.
"""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch._dynamo
from torch import nn

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
SHAPES = 4
"""Shapes of input that each block may be compiled for: batches of an epoch's end are shorter than the others."""


def compile_for_training(model: nn.Module, mode: str, backend: str = "inductor") -> nn.Module:
    """Compiles ``model``; what was compiled before in this process is thrown away.

    Repeated blocks (:func:`repeated_blocks`) are compiled in place, so that all names stay; what surrounds them runs as
    it is. Each shape of input has code of its own: that made for any shape is slower, and a run has few shapes.

    Args:
        mode: a mode of torch.compile: default, reduce-overhead, max-autotune.

    Returns:
        The model to train: ``model`` itself where its blocks are compiled.
    """
    torch.compiler.reset()
    options: dict[str, Any] = {"mode": mode, "dynamic": False} if backend == "inductor" else {"dynamic": False}
    blocks = repeated_blocks(model)
    for block in blocks:
        block.compile(backend=backend, **options)
    if not blocks:
        return torch.compile(model, backend=backend, **options)  # type: ignore[return-value]
    # All blocks count as one piece of code, of which torch keeps eight variants, and runs the others uncompiled.
    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, SHAPES * len(blocks))
    return model


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """Returns the modules of which a model is built up: Swin's, ResNet's or a ViT's blocks.

    A class counts as one of blocks if two of its modules stand in one Sequential or ModuleList, with parameters of the
    same names and shapes, and have parts of their own (single layers are none). Blocks are all modules of such classes
    that lie in no other block.
    """
    classes = set()
    for container in model.modules():
        if isinstance(container, nn.Sequential | nn.ModuleList):
            kinds = Counter((type(child), _shapes(child)) for child in container if _may_be_block(child))
            classes |= {kind for (kind, _), count in kinds.items() if count > 1}
    return _outermost(model, tuple(classes))


def _outermost(module: nn.Module, classes: tuple[type, ...]) -> list[nn.Module]:
    """Returns the modules of these very classes below ``module``, without those below others of them."""
    if type(module) in classes:
        return [module]
    return [block for child in module.children() for block in _outermost(child, classes)]


def _may_be_block(module: nn.Module) -> bool:
    return type(module) not in CONTAINERS and any(True for _ in module.children())


def _shapes(module: nn.Module) -> tuple[tuple[str, torch.Size], ...]:
    return tuple((name, parameter.shape) for name, parameter in module.named_parameters())


def uncompiled() -> AbstractContextManager[None]:
    """Has compiled modules run as they were written, as in an evaluation, whose batches have other shapes."""
    return torch.compiler.set_stance("force_eager")
