"""How weights may differ from a model and still fit: later stages, other classes, another window.

Each function takes a state dict under our names and returns the part to go on with, and never changes its argument.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from swin.attention import WindowAttention
from swin.model import SwinBackbone, SwinFeatures, SwinTransformer

State = dict[str, Tensor]


def with_last_norm(model: SwinBackbone, state: Mapping[str, Tensor]) -> State:
    """Takes a classifier's final norm for that of the last feature map, where `model` ends with the same stage."""
    last = f"norm{len(model.layers) - 1}."
    renames = isinstance(model, SwinFeatures) and _stages(state) == len(model.layers)
    if not renames or any(name.startswith(last) for name in state):
        return dict(state)
    return {re.sub(r"^norm\.", last, name): tensor for name, tensor in state.items()}


def without_later_stages(model: SwinBackbone, state: Mapping[str, Tensor]) -> State:
    """Leaves out what lies behind the last stage that `model` uses: stages, norms, the classifier of a headless one."""
    used, stored = len(model.layers), _stages(state)
    behind = []
    if stored > used:
        later = "|".join(str(stage) for stage in range(used, stored))
        behind += [rf"layers\.({later})\.", r"norm\.", r"head\."]
        if "downsample" not in dict(model.layers[-1].named_children()):
            behind.append(rf"layers\.{used - 1}\.downsample\.")
    if not isinstance(model, SwinTransformer):
        chosen = model.out_indices if isinstance(model, SwinFeatures) else ()
        others = "|".join(str(stage) for stage in range(stored) if stage not in chosen)
        behind += [rf"norm({others})\.", r"head\."]
    elif model.num_classes == 0:
        behind.append(r"head\.")
    return {name: tensor for name, tensor in state.items() if not any(re.match(part, name) for part in behind)}


def _stages(state: Mapping[str, Tensor]) -> int:
    """Returns how many stages a state dict has."""
    return 1 + max((int(name.split(".")[1]) for name in state if re.match(r"layers\.\d+\.", name)), default=-1)


def without_other_classifier(model: SwinBackbone, state: Mapping[str, Tensor]) -> State:
    """Leaves out a head that differs from the model's in its number of classes, or in its layers.

    A single layer of other features stays: those weights are of another model.
    """
    ours, theirs = (
        {name: tensor.shape for name, tensor in tensors.items() if name.startswith("head.")}
        for tensors in (model.state_dict(), state)
    )
    single = ours.keys() == theirs.keys() == {"head.weight", "head.bias"}
    if not ours or ours == theirs or (single and ours["head.weight"][1:] != theirs["head.weight"][1:]):
        return dict(state)
    return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}


def with_resized_tables(model: nn.Module, state: Mapping[str, Tensor]) -> State:
    """Interpolates the bias tables of another window."""
    resized = dict(state)
    for path, module in model.named_modules():
        name = f"{path}.relative_position_bias_table"
        if isinstance(module, WindowAttention) and name in state:
            resized[name] = resize_bias_table(state[name], module.window)
    return resized


def resize_bias_table(table: Tensor, window: tuple[int, int]) -> Tensor:
    """Resizes the biases bicubically over the plane of offsets, as in the paper's code.

    Args:
        table: ((2s - 1)^2, heads) of a square window of s tokens a side.
        window: The new height h and width w.

    Returns:
        ((2h - 1)(2w - 1), heads); the table itself where that is its size already, or where it is of no square window.
    """
    height, width = 2 * window[0] - 1, 2 * window[1] - 1
    side = math.isqrt(len(table))
    if table.dim() != 2 or len(table) == height * width or side**2 != len(table):
        return table
    plane = table.float().T.reshape(1, -1, side, side)
    plane = F.interpolate(plane, size=(height, width), mode="bicubic", align_corners=False)
    return plane.flatten(2)[0].T.to(table.dtype)


def may_be_fresh(name: str, state: Mapping[str, Tensor], dropped: set[str]) -> bool:
    """Returns whether a parameter that the weights lack may keep a fresh initialisation.

    Args:
        name: The parameter that `state` lacks.
        state: What is going to be loaded.
        dropped: What the functions above left out.
    """
    if name.startswith("head."):
        return not any(other.startswith("head.") for other in state)
    return name in dropped or re.match(r"norm\d+\.", name) is not None
