"""A folder as timm's on the hub: config.json and model.safetensors, for ``timm.create_model("local-dir:FOLDER")``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.errors import UserError
from engine.exported.exportable import Exportable, Run
from swin import SwinTransformer
from swin.config import SwinConfig

CROPS = {"crop": "center", "squash": "squash", "pad": "border"}
"""`data.resize` by timm's names."""


def write(model: Exportable, description: str, path: Path) -> None:
    """Writes a classifier.

    Raises:
        UserError: timm has no model that computes the same.
    """
    told = json.loads(description)
    _, _, height, width = told["input"]["shape"]
    size = (height, width)
    network = model.network
    arguments: dict[str, Any] = {}
    if isinstance(network, SwinTransformer):
        shape = network.config
        require_unpadded(shape, size, "timm")
        if not shape.patch_norm:
            raise UserError("--format timm: timm's Swin has a norm behind the patches, this one has none")
        architecture = "swin_tiny_patch4_window7_224"
        arguments = {
            "img_size": list(size),
            "window_size": shape.windows[0][0],
            **{name: getattr(shape, name) for name in ("patch_size", "embed_dim", "depths", "num_heads")},
            "mlp_ratio": shape.mlp_ratio,
            "qkv_bias": shape.qkv_bias,
        }
        state = to_timm(network.state_dict())
    elif model.model_name.startswith("timm/"):
        architecture = model.model_name.removeprefix("timm/").partition(".")[0]
        if hasattr(getattr(network, "patch_embed", None), "grid_size"):
            arguments = {"img_size": list(size)}
        state = network.state_dict()
    else:
        raise UserError(f"--format timm: timm has no {model.model_name}")
    count = len(told["classes"])
    try:
        timm.create_model(architecture, num_classes=count, **arguments).load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        text = f"--format timm: the weights do not fit timm's {architecture} (a head of one's own?): {reason}"
        raise UserError(text) from None
    path.mkdir()
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, path / "model.safetensors")
    preprocessing, normalization = told["preprocessing"], told["normalization"]
    published = getattr(network, "pretrained_cfg", {})
    config = {
        "architecture": architecture,
        "num_classes": count,
        "label_names": told["classes"],
        "model_args": arguments,
        "pretrained_cfg": {
            "tag": "swin_hpc",
            "custom_load": False,
            "input_size": [3, *size],
            "fixed_input_size": bool(arguments),
            "interpolation": preprocessing["interpolation"],
            "crop_pct": preprocessing["crop_pct"] if preprocessing["resize"] == "crop" else 1.0,
            "crop_mode": CROPS[preprocessing["resize"]],
            "mean": normalization["mean"],
            "std": normalization["std"],
            "num_classes": count,
            "pool_size": None,
            "first_conv": published.get("first_conv", "patch_embed.proj"),
            "classifier": published.get("classifier", "head.fc"),
        },
    }
    (path / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load(path: Path, model: Exportable) -> Run:
    """Loads a folder by timm alone."""
    network: Any = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
    return of_logits(network, network.pretrained_cfg["mean"], network.pretrained_cfg["std"], model)


def of_logits(network: Any, mean: Any, std: Any, model: Exportable) -> Run:
    """Returns a network that takes normalised images as one that takes images of 8 bits."""
    means, deviations = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))

    def run(inputs: Any) -> dict[str, Any]:
        with torch.no_grad():
            found = network((torch.from_numpy(np.asarray(inputs[0])).float() / 255 - means) / deviations)
        logits = getattr(found, "logits", found)
        probabilities = logits.sigmoid() if model.description["multi_label"] else logits.softmax(1)
        return {"logits": logits.numpy(), "probabilities": probabilities.numpy()}

    return run


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
