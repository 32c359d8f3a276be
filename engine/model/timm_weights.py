"""The weights that timm publishes for its models: from a cache of this machine, or else downloaded."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from safetensors import SafetensorError
from timm.models import PretrainedCfg, get_pretrained_cfg
from torch import nn

from engine.errors import UserError

TIMEOUT_SECONDS = 10
"""Longest wait for a first answer of the server that has the weights."""

PREFERRED = {"pytorch_model.bin": "model.safetensors", "open_clip_pytorch_model.bin": "open_clip_model.safetensors"}
"""Files of weights in a repository of the hub, and those that timm takes in their place if they are there."""


def create_timm(name: str, key: str, published: bool, image_size: tuple[int, int] | None, **options: Any) -> nn.Module:
    """Builds timm's model ``name``, for ``image_size`` (height, width) if it is bound to one.

    Args:
        key: of the configuration, which names the model or its section.
        published: start from the weights that timm publishes.
        options: for ``timm.create_model``.

    Raises:
        UserError: timm cannot make it so, or its published weights are not to be had.
    """
    create = partial(create_pretrained if published else timm.create_model, name)
    try:
        if image_size is not None:
            with suppress(TypeError):  # models without position embeddings know no such argument
                return create(img_size=image_size, **options)
        return create(**options)
    except (TypeError, ValueError, RuntimeError, OSError, AssertionError, SafetensorError) as error:
        if "drop_path_rate" in str(error):
            section = key.partition(".")[0]
            raise UserError(f"{section}.drop_path: {name} has no stochastic depth; set it to null") from None
        raise UserError(f"{key}: timm cannot make {name} with these settings: {error}") from None


def create_pretrained(name: str, **options: Any) -> nn.Module:
    """Builds timm's model ``name`` with its published weights.

    A file in a cache is taken without asking whether there is a newer one, so that machines without internet access do
    not wait for answers.

    Args:
        options: for ``timm.create_model``.

    Raises:
        UserError: the weights are in no cache and cannot be downloaded.
    """
    published = get_pretrained_cfg(name)
    assert published is not None, "the configuration has checked it"
    file = None if published.custom_load else cached_file(published)
    if file is not None:
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(file)}, **options)
    where = f"neither in {constants.HF_HUB_CACHE} nor in {torch_cache()}"
    if reason := no_way_to(published):
        raise UserError(
            f"finetune.weights: the weights of {name} are {where}, and there is no network to download them: "
            f"{reason}. Compute nodes often have none: start the same command once with --dry-run on the login node, "
            "with the same cache (HF_HOME), or set finetune.weights=FILE"
        )
    try:
        return timm.create_model(name, pretrained=True, **options)
    except OSError as error:
        source = f"https://huggingface.co/{published.hf_hub_id}" if published.hf_hub_id else published.url
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"finetune.weights: the weights of {name} are {where}, and cannot be downloaded from {source} ({reason}); "
            "try again, or set finetune.weights=FILE"
        ) from None


def no_way_to(published: PretrainedCfg) -> str:
    """Says why the server of published weights cannot be reached; empty if it can.

    Asks once, through the proxy that the environment names, where the libraries that download ask again and again for
    most of a minute. Any answer will do, also that of a server which does not like the question.
    """
    url = constants.ENDPOINT if published.hf_hub_id else str(published.url)
    if published.hf_hub_id and constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError:
        return ""
    except OSError as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if not isinstance(reason, ssl.SSLError):  # others may trust other certificates
            return f"{url} does not answer ({reason})"
    return ""


def cached_file(published: PretrainedCfg) -> Path | None:
    """Returns the file of published weights in the Hugging Face hub's cache or in torch's; None if it is in neither."""
    if published.hf_hub_id:
        repository, _, revision = published.hf_hub_id.partition("@")
        name = published.hf_hub_filename or "pytorch_model.bin"
        for file in (PREFERRED.get(name, name), name):
            found = try_to_load_from_cache(repository, file, revision=revision or None)
            if isinstance(found, str):
                return Path(found)
    if isinstance(published.url, str) and published.url:
        downloaded = torch_cache() / Path(urlparse(published.url).path).name
        return downloaded if downloaded.is_file() else None
    return None


def require_cached(name: str) -> None:
    """Looks for the weights of timm's model ``name`` in the caches, which nodes share through the home folder.

    Raises:
        UserError: they are on the hub, and in no cache.
    """
    published = get_pretrained_cfg(name)
    if published is not None and published.hf_hub_id and cached_file(published) is None:
        raise UserError(
            f"finetune.weights: the weights of timm/{name} ({published.hf_hub_id}) are not in the cache; fetch them "
            f"here first: python -c \"import timm; timm.create_model('{name}', pretrained=True)\""
        )


def torch_cache() -> Path:
    """Returns the folder of torch's downloads."""
    return Path(torch.hub.get_dir(), "checkpoints")
