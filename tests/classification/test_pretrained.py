"""Published weights: from caches as their makers lay them out, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from timm.models import get_pretrained_cfg

from classification.config import ModelConfig
from classification.model import build_model
from engine.errors import UserError
from engine.pretrained import cached_file
from engine.settings import FinetuneConfig

NAME = "test_byobnet.r160_in1k"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no way to its server; and an empty cache of torch's."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "hub"


def keep(hub: Path, state: dict[str, Any], name: str = "model.safetensors") -> None:
    """Puts a file where ``huggingface_hub`` puts what it has downloaded."""
    repository = hub / f"models--timm--{NAME}"
    snapshot = repository / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abcd")
    (save_file if name.endswith("safetensors") else torch.save)(state, snapshot / name)


def build(num_classes: int) -> Any:
    torch.manual_seed(1)
    return build_model(ModelConfig(name=f"timm/{NAME}", pretrained=True), FinetuneConfig(), num_classes, (32, 32))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("num_classes", [1000, 7])
def test_a_cached_file_is_enough(hub: Path, name: str, num_classes: int) -> None:
    torch.manual_seed(0)
    published = timm.create_model("test_byobnet", num_classes=1000).state_dict()
    keep(hub, published, name)
    for key, tensor in build(num_classes).state_dict().items():
        fresh = num_classes == 7 and key.startswith("head.fc.")
        assert fresh or torch.equal(tensor, published[key]), key


def test_torchs_cache_counts_too(hub: Path, tmp_path: Path) -> None:
    published = get_pretrained_cfg("resnet50.a1_in1k")
    assert published is not None and cached_file(published) is None
    file = tmp_path / "torch" / "hub" / "checkpoints" / "resnet50_a1_0-14fe96d1.pth"
    file.parent.mkdir(parents=True)
    file.touch()
    assert cached_file(published) == file


def test_without_cache_and_network_it_is_said_what_was_tried(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        build(7)
    message = str(caught.value)
    assert message.startswith(f"model.pretrained: the weights of {NAME} are neither in {hub} nor in {tmp_path}/torch")
    assert f"cannot be downloaded from https://huggingface.co/timm/{NAME} (" in message
    assert "start once with --dry-run" in message and "finetune.weights" in message
    assert len(message.splitlines()) == 1


def test_a_damaged_file_in_the_cache_is_named_as_what_it_is(hub: Path) -> None:
    keep(hub, {"weight": torch.ones(2)})
    next(hub.rglob("model.safetensors")).write_bytes(b"torn")
    with pytest.raises(UserError, match=rf"model: timm cannot make {NAME} with these settings: .*header"):
        build(7)
