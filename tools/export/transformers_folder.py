"""A folder for transformers' SwinForImageClassification: config, weights, and the settings of its image processor."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from engine.errors import UserError
from engine.exported.exportable import Exportable, Run
from swin import SwinTransformer
from tools.export.timm_folder import of_logits, require_unpadded

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
"""Our names of parameters, and theirs."""
RESAMPLING = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}


def write(model: Exportable, description: str, path: Path) -> None:
    """Writes a Swin of ours.

    Raises:
        UserError: it is another model, or one that transformers would compute otherwise.
    """
    told, network = json.loads(description), model.network
    if not isinstance(network, SwinTransformer):
        other = "timm, which it loads too" if model.model_name.startswith("timm/") else "onnx, pt2 or tflite"
        raise UserError(f"--format transformers: is for our Swins; for {model.model_name} use {other}")
    shape, (_, _, height, width) = network.config, told["input"]["shape"]
    size = (height, width)
    require_unpadded(shape, size, "transformers")
    if len(set(shape.windows)) > 1 or not shape.patch_norm:
        raise UserError(
            f"--format transformers: its Swin has one window in all stages, of which this one has "
            f"{', '.join(map(str, shape.windows))}; use timm, which it loads too"
        )
    if any(name.startswith("head.") and name not in ("head.weight", "head.bias") for name in network.state_dict()):
        raise UserError("--format transformers: its Swin has one layer for a head; use onnx, pt2 or tflite")
    preprocessing, normalization = told["preprocessing"], told["normalization"]
    if preprocessing["resize"] == "pad" or (preprocessing["resize"] == "crop" and size[0] != size[1]):
        raise UserError(
            f"--format transformers: has no processor for data.resize {preprocessing['resize']} to {size}; use timm"
        )
    sizes: dict[str, Any] = {"image_processor_type": "ViTImageProcessor", "size": {"height": size[0], "width": size[1]}}
    if preprocessing["resize"] == "crop":
        sizes = {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": math.floor(size[0] / preprocessing["crop_pct"])},
            "do_center_crop": True,
            "crop_size": {"height": size[0], "width": size[1]},
        }
    path.mkdir()
    state = {name: tensor.contiguous().clone() for name, tensor in to_transformers(network.state_dict()).items()}
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    labels = {str(number): name for number, name in enumerate(told["classes"])}
    config = {
        "architectures": ["SwinForImageClassification"],
        "model_type": "swin",
        "image_size": list(size) if size[0] != size[1] else size[0],
        "window_size": shape.windows[0][0],
        "patch_size": shape.patch_size,
        "num_channels": shape.in_chans,
        "embed_dim": shape.embed_dim,
        "depths": list(shape.depths),
        "num_heads": list(shape.num_heads),
        "mlp_ratio": shape.mlp_ratio,
        "qkv_bias": shape.qkv_bias,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "id2label": labels,
        "label2id": {name: int(number) for number, name in labels.items()},
        "problem_type": "multi_label_classification" if told["multi_label"] else "single_label_classification",
    }
    processor = {
        **sizes,
        "do_resize": True,
        "resample": RESAMPLING[preprocessing["interpolation"]],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": normalization["mean"],
        "image_std": normalization["std"],
    }
    for name, content in (("config", config), ("preprocessor_config", processor)):
        (path / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load(path: Path, model: Exportable) -> Run:
    """Loads a folder by transformers alone."""
    from transformers import SwinForImageClassification

    network = SwinForImageClassification.from_pretrained(path).eval()
    processor = json.loads((path / "preprocessor_config.json").read_text(encoding="utf-8"))
    return of_logits(network, processor["image_mean"], processor["image_std"], model)


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
