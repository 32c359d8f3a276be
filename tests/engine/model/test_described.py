"""Which classes an exported file of weights is for."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from engine.model.pretrained import read_weights


def test_exported_weights_say_their_classes_and_others_do_not(tmp_path: Path) -> None:
    tensors, told = {"a": torch.zeros(2)}, {"classes": ["cat", "dog"]}
    for name, metadata, classes in (
        ("ours", {"swin_hpc": json.dumps(told), "format": "pt"}, ["cat", "dog"]),
        ("denoiser", {"swin_hpc": json.dumps({}), "format": "pt"}, None),
        ("foreign", {"format": "pt"}, None),
        ("bare", None, None),
    ):
        save_file(tensors, tmp_path / f"{name}.safetensors", metadata=metadata)
        assert read_weights(tmp_path / f"{name}.safetensors").classes == classes
