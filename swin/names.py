"""The names that different publishers give to the same parameters, translated to ours (Microsoft's)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

BUFFERS = ("relative_position_index", "attn_mask")
"""Stored by some publishers although they follow from the window and the image's size."""


def to_own_names(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """Renames a state dict.

    Returns:
        Whose names they were ("microsoft", which are ours, "timm" or "torchvision"), and the state dict under ours
        without buffers. Names that nobody uses are kept as they are.
    """
    rename: Callable[[str], str]
    # A stage begins with its merging in timm's models, and ends with it in ours.
    merges_first = "layers.1.downsample.norm.weight" in state and "layers.0.downsample.norm.weight" not in state
    if any(name.startswith("features.") for name in state):
        source, rename = "torchvision", _from_torchvision
    elif "head.fc.weight" in state or merges_first:
        source, rename = "timm", _from_timm
    else:
        source, rename = "microsoft", str
    return source, {rename(name): tensor for name, tensor in state.items() if not name.endswith(BUFFERS)}


def _from_timm(name: str) -> str:
    name = re.sub(r"^head\.fc\.", "head.", name)
    return re.sub(r"^layers\.(\d+)\.downsample\.", lambda found: f"layers.{int(found[1]) - 1}.downsample.", name)


def _from_torchvision(name: str) -> str:
    """Translates `features`, which alternates: embedding (0), blocks (1), merging (2), blocks (3), …"""
    name = name.replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.3.", ".mlp.fc2.")
    name = name.replace("features.0.0.", "patch_embed.proj.").replace("features.0.2.", "patch_embed.norm.")

    def place(found: re.Match[str]) -> str:
        stage, merging = divmod(int(found[1]) - 1, 2)
        return f"layers.{stage}.downsample." if merging else f"layers.{stage}.blocks."

    return re.sub(r"^features\.(\d+)\.", place, name)
