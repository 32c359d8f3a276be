"""Our Swin as other libraries have it: what has to hold for that, and their names of its parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from engine.errors import UserError
from swin.config import SwinConfig


def require_unpadded(config: SwinConfig, size: tuple[int, int], library: str) -> None:
    """Checks that a Swin computes the same in a library that pads and shifts in another order.

    Raises:
        UserError: a map would have to be padded, or a window is not square.
    """
    rows, columns = size
    if rows % config.patch_size or columns % config.patch_size:
        raise UserError(f"--format {library}: {size} pixels are no whole patches of {config.patch_size}")
    rows, columns = rows // config.patch_size, columns // config.patch_size
    for stage, (down, right) in enumerate(config.windows):
        if down != right:
            raise UserError(f"--format {library}: windows of {down} x {right} are not square; use onnx, pt2 or tflite")
        last = stage + 1 == len(config.depths)
        if rows % down or columns % right or (not last and (rows % 2 or columns % 2)):
            raise UserError(
                f"--format {library}: at {size[0]} x {size[1]} pixels the map of stage {stage + 1}, {rows} x "
                f"{columns}, is padded to windows of {down}, which {library} does in another way: answers would "
                "differ; use onnx, pt2 or tflite, or another image size"
            )
        rows, columns = rows // 2, columns // 2


def to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a classifier's weights under timm's names: a stage begins with its merging there."""
    renamed = {re.sub(r"^head\.", "head.fc.", name): tensor for name, tensor in state.items()}
    return {
        re.sub(r"^layers\.(\d+)\.downsample\.", lambda found: f"layers.{int(found[1]) + 1}.downsample.", name): tensor
        for name, tensor in renamed.items()
    }


TRANSFORMERS = (
    (r"^patch_embed\.proj\.", "swin.embeddings.patch_embeddings.projection."),
    (r"^patch_embed\.norm\.", "swin.embeddings.norm."),
    (r"^layers\.", "swin.encoder.layers."),
    (r"^norm\.", "swin.layernorm."),
    (r"^head\.", "classifier."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.(?!qkv)", ".attention.self."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a classifier's weights under the names that transformers' files have, q, k and v apart."""
    found = {}
    for name, tensor in state.items():
        for pattern, theirs in TRANSFORMERS:
            name = re.sub(pattern, theirs, name)
        if ".attn.qkv." in name:
            for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                found[name.replace(".attn.qkv.", f".attention.self.{part}.")] = third.contiguous()
        else:
            found[name] = tensor
    return found
