"""Published weights: from caches as their makers lay them out, without a network."""

from __future__ import annotations

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from timm.models import get_pretrained_cfg

from classification.model.build import build_model
from classification.model.sections import ModelConfig
from engine.config.training import FinetuneConfig
from engine.errors import UserError
from engine.model.timm_weights import cached_file, no_way_to
from tests.sections import section

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
    return build_model(section(ModelConfig, name=f"timm/{NAME}"), FinetuneConfig(weights="timm"), num_classes, (32, 32))


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


@pytest.mark.parametrize("offline", [True, False])
def test_without_cache_and_network_it_is_said_at_once_what_was_tried(
    hub: Path, offline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", url)  # where nobody listens any more
    begun = time.monotonic()
    with pytest.raises(UserError) as caught:
        build(7)
    message = str(caught.value)
    assert message.startswith(f"finetune.weights: the weights of {NAME} are neither in {hub} nor in {tmp_path}/torch")
    reason = "HF_HUB_OFFLINE is set" if offline else f"{url} does not answer (["
    assert f"there is no network to download them: {reason}" in message
    assert "with --dry-run on the login node" in message and "finetune.weights=FILE" in message
    assert len(message.splitlines()) == 1 and time.monotonic() - begun < 5


def test_a_server_that_answers_and_has_no_such_file_is_not_taken_for_no_network(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = get_pretrained_cfg(NAME)
    assert published is not None
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:  # knows no method at all: 501
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert no_way_to(published) == ""
        thread.join()


def test_a_download_that_fails_is_told_with_its_reason(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.model.timm_weights.no_way_to", lambda published: "")
    with pytest.raises(
        UserError, match=rf"cannot be downloaded from https://huggingface\.co/timm/{NAME} \(.*locate the file"
    ):
        build(7)


def test_a_damaged_file_in_the_cache_is_named_as_what_it_is(hub: Path) -> None:
    keep(hub, {"weight": torch.ones(2)})
    next(hub.rglob("model.safetensors")).write_bytes(b"torn")
    with pytest.raises(UserError, match=rf"model: timm cannot make {NAME} with these settings: .*header"):
        build(7)
