"""The weights that timm publishes for its models: from a cache of this machine, or else downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from timm.models import PretrainedCfg, get_pretrained_cfg
from torch import nn

from engine.errors import UserError

PREFERRED = {"pytorch_model.bin": "model.safetensors", "open_clip_pytorch_model.bin": "open_clip_model.safetensors"}
"""Files of weights in a repository of the hub, and those that timm takes in their place if they are there."""


def create_pretrained(name: str, key: str, **options: Any) -> nn.Module:
    """timm's model ``name`` with its published weights.

    A file in a cache is taken without asking whether there is a newer one, so that machines without internet access do
    not wait for answers.

    Args:
        key: the setting that asks for them.
        options: for ``timm.create_model``.

    Raises:
        UserError: the weights are in no cache and cannot be downloaded.
    """
    published = get_pretrained_cfg(name)
    assert published is not None, "the configuration has checked it"
    file = None if published.custom_load else cached_file(published)
    if file is not None:
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(file)}, **options)
    try:
        return timm.create_model(name, pretrained=True, **options)
    except OSError as error:
        source = f"https://huggingface.co/{published.hf_hub_id}" if published.hf_hub_id else published.url
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{key}: the weights of {name} are neither in {hub_cache()} nor in {torch_cache()}, and cannot "
            f"be downloaded from {source} ({reason}); start once with --dry-run where there is internet access and the "
            f"same cache (HF_HOME), or set {key}=false and give their file in finetune.weights"
        ) from None


def cached_file(published: PretrainedCfg) -> Path | None:
    """The file of published weights in the Hugging Face hub's cache or in torch's; None if it is in neither."""
    if published.hf_hub_id:
        repository, _, revision = published.hf_hub_id.partition("@")
        name = published.hf_hub_filename or "pytorch_model.bin"
        for file in (PREFERRED.get(name, name), name):
            found = try_to_load_from_cache(repository, file, hub_cache(), revision or None)
            if isinstance(found, str):
                return Path(found)
    if isinstance(published.url, str) and published.url:
        downloaded = torch_cache() / Path(urlparse(published.url).path).name
        return downloaded if downloaded.is_file() else None
    return None


def hub_cache() -> Path:
    return Path(constants.HF_HUB_CACHE)


def torch_cache() -> Path:
    return Path(torch.hub.get_dir(), "checkpoints")
