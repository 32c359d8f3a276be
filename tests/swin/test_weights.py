"""Weights by everyone: strict where they must fit, reported where they need not."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from swin import (
    SwinConfig,
    SwinFeatures,
    SwinTransformer,
    WeightsError,
    load_swin_weights,
    swin_tiny,
)
from swin.adapt import resize_bias_table

SHAPE: dict[str, Any] = {"embed_dim": 24, "depths": (2, 2, 2), "num_heads": (2, 4, 8), "patch_size": 2}


def small(**fields: Any) -> SwinTransformer:
    return SwinTransformer(SwinConfig(**{**SHAPE, "num_classes": 5, "window_size": 4, **fields}))


def release(
    depths: tuple[int, ...] = (2, 2, 6, 2), dim: int = 96, heads: int = 3, window: int = 7, classes: int = 1000
) -> dict[str, Tensor]:
    """A state dict with the names and shapes of Microsoft's swin_tiny_patch4_window7_224.pth, buffers included."""
    generator = torch.Generator().manual_seed(0)

    def layer(name: str, *shape: int, bias: bool = True) -> None:
        state[f"{name}.weight"] = torch.randn(shape, generator=generator)
        if bias:
            state[f"{name}.bias"] = torch.randn(shape[0], generator=generator)

    state: dict[str, Tensor] = {}
    area, offsets, side = window**2, (2 * window - 1) ** 2, 8
    layer("patch_embed.proj", dim, 3, 4, 4)
    layer("patch_embed.norm", dim)
    for stage, depth in enumerate(depths):
        width, number = dim * 2**stage, heads * 2**stage
        for block in range(depth):
            path = f"layers.{stage}.blocks.{block}"
            if block % 2 and stage < len(depths) - 1:
                state[f"{path}.attn_mask"] = torch.zeros(side**2 // 4**stage, area, area)
            layer(f"{path}.norm1", width)
            state[f"{path}.attn.relative_position_bias_table"] = torch.randn(offsets, number, generator=generator)
            state[f"{path}.attn.relative_position_index"] = torch.zeros(area, area, dtype=torch.long)
            layer(f"{path}.attn.qkv", 3 * width, width)
            layer(f"{path}.attn.proj", width, width)
            layer(f"{path}.norm2", width)
            layer(f"{path}.mlp.fc1", 4 * width, width)
            layer(f"{path}.mlp.fc2", width, 4 * width)
        if stage < len(depths) - 1:
            layer(f"layers.{stage}.downsample.reduction", 2 * width, 4 * width, bias=False)
            layer(f"layers.{stage}.downsample.norm", 4 * width)
    layer("norm", width)
    layer("head", classes, width)
    return state


def test_the_release_loads_strictly() -> None:
    state = release()
    model = swin_tiny()
    report = load_swin_weights(model, {"model": state})
    own = model.state_dict()
    assert report.source == "microsoft"
    assert set(report.loaded) == set(own)
    assert not (report.interpolated or report.initialised or report.ignored)
    assert own.keys() == {name for name in state if not name.endswith(("_index", "attn_mask"))}
    assert all(torch.equal(own[name], state[name]) for name in own)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_files(tmp_path: Path, suffix: str, wrapped: bool) -> None:
    source, model = small(), small()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(source.state_dict(), path)
    else:
        torch.save({"model": source.state_dict(), "step": 3} if wrapped else source.state_dict(), path)
    report = load_swin_weights(model, str(path) if wrapped else path)
    assert len(report.loaded) == len(source.state_dict())
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(model.eval()(x), source.eval()(x))


def test_another_class_count_replaces_the_classifier(caplog: pytest.LogCaptureFixture) -> None:
    source, model = small(num_classes=9), small()
    torch.nn.init.constant_(model.head.get_parameter("bias"), 7.0)
    with caplog.at_level(logging.INFO, logger="swin"):
        report = load_swin_weights(model, source.state_dict())
    assert report.initialised == ["head.weight", "head.bias"]
    assert report.ignored == []
    assert model.head.get_parameter("bias").abs().max() == 0
    assert 0.015 < model.head.get_parameter("weight").std() < 0.025
    assert [record.message for record in caplog.records][1:] == ["initialised anew: head.weight, head.bias"]
    assert torch.equal(model.norm.weight, source.norm.weight)


def test_headless_models_and_headless_weights() -> None:
    source, headless = small(), small(num_classes=0)
    report = load_swin_weights(headless, source.state_dict())
    assert report.ignored == ["head.weight", "head.bias"]
    report = load_swin_weights(source, headless.state_dict())
    assert report.initialised == ["head.weight", "head.bias"]


def test_another_window_interpolates_the_tables(caplog: pytest.LogCaptureFixture) -> None:
    source, model = small(window_size=7), small(window_size=12)
    with caplog.at_level(logging.INFO, logger="swin"):
        report = load_swin_weights(model, source.state_dict())
    assert report.interpolated == sorted(model.no_weight_decay())
    assert "bias tables interpolated" in caplog.text
    table = source.layers[0].get_parameter("blocks.1.attn.relative_position_bias_table")
    plane = table.detach().reshape(1, 13, 13, 2).permute(0, 3, 1, 2)
    wanted = F.interpolate(plane, size=(23, 23), mode="bicubic").permute(0, 2, 3, 1).reshape(23 * 23, 2)
    resized = model.layers[0].get_parameter("blocks.1.attn.relative_position_bias_table")
    assert torch.allclose(resized, wanted, atol=1e-6)
    assert model(torch.randn(1, 3, 96, 96)).isfinite().all()


def test_swin_tiny_of_window_12_at_384_from_window_7() -> None:
    report = load_swin_weights(swin_tiny(img_size=384, window_size=12), release())
    assert len(report.interpolated) == 12


def test_resizing_a_table() -> None:
    table = torch.randn(49, 3)
    assert resize_bias_table(table, (4, 4)) is table
    constant = resize_bias_table(torch.full((49, 3), 2.5), (6, 3))
    assert constant.shape == (11 * 5, 3)
    assert torch.allclose(constant, torch.tensor(2.5))
    rows = torch.arange(49.0).div(7, rounding_mode="floor")[:, None]  # grows downwards, the same along each row
    resized = resize_bias_table(rows, (8, 8)).reshape(15, 15)
    assert torch.allclose(resized, resized[:, :1].expand(15, 15), atol=1e-5)
    assert (resized[1:-1, 0].diff() > 0).all()
    assert resize_bias_table(torch.randn(48, 3), (4, 5)).shape == (48, 3)


def test_feature_maps_take_classifier_weights() -> None:
    source = small()
    torch.nn.init.normal_(source.norm.weight)
    model = SwinFeatures(SwinConfig(**SHAPE, window_size=4))
    report = load_swin_weights(model, source.state_dict())
    assert report.initialised == ["norm0.weight", "norm0.bias", "norm1.weight", "norm1.bias"]
    assert report.ignored == ["head.weight", "head.bias"]
    x = torch.randn(2, 3, 32, 32)
    maps = model.eval()(x)
    assert torch.equal(maps[-1].permute(0, 2, 3, 1), source.eval().forward_features(x))


def test_feature_maps_of_fewer_stages_ignore_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    model = SwinFeatures(SwinConfig(**SHAPE, window_size=4), out_indices=(1,))
    with caplog.at_level(logging.INFO, logger="swin"):
        report = load_swin_weights(model, small().state_dict())
    assert report.initialised == ["norm1.weight", "norm1.bias"]
    parts = {name.rpartition(".")[0] for name in report.ignored}
    assert {"norm", "head", "layers.1.downsample.norm", "layers.2.blocks.0.attn.qkv"} <= parts
    assert all(name.startswith(("norm.", "head.", "layers.1.downsample.", "layers.2.")) for name in report.ignored)
    assert "ignored, behind the last stage in use" in caplog.text
    again = load_swin_weights(model, SwinFeatures(SwinConfig(**SHAPE, window_size=4)).state_dict())
    assert again.initialised == []
    assert {"norm0.weight", "norm2.weight"} <= set(again.ignored)


def test_a_classifier_of_fewer_stages_gets_its_own_norm_and_head() -> None:
    model = SwinTransformer(SwinConfig(embed_dim=24, depths=(2, 2), num_heads=(2, 4), patch_size=2, window_size=4))
    report = load_swin_weights(model, small().state_dict())
    assert report.initialised == ["norm.weight", "norm.bias", "head.weight", "head.bias"]
    assert "layers.1.downsample.norm.weight" in report.ignored


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layers.0.blocks.0.norm1.bias": None}, r"1 missing: layers\.0\.blocks\.0\.norm1\.bias \(24,\)$"),
        ({"layers.0.blocks.5.norm1.bias": (24,)}, r"1 surplus: layers\.0\.blocks\.5\.norm1\.bias \(24,\)$"),
        ({"norm.weight": (95,)}, r"1 of another shape: norm\.weight \(95,\) instead of \(96,\)"),
        ({"head.weight": (9, 95)}, r"head\.weight \(9, 95\) instead of \(5, 96\)"),
        ({"layers.1.blocks.0.attn.relative_position_bias_table": (48, 4)}, r"\(48, 4\) instead of \(49, 4\)"),
        ({"layers.1.blocks.0.attn.relative_position_bias_table": (49, 3)}, r"\(49, 3\) instead of \(49, 4\)"),
        (
            {"norm.weight": None, "absolute_pos_embed": (1, 4, 24)},
            r"1 missing: norm\.weight \(96,\)\n  1 surplus: absolute_pos",
        ),
    ],
)
def test_anything_else_is_an_error_that_leaves_the_model_alone(
    change: dict[str, tuple[int, ...] | None], words: str
) -> None:
    model = small()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = small().state_dict()
    for name, shape in change.items():
        if shape is None:
            del state[name]
        else:
            state[name] = torch.zeros(shape)
    with pytest.raises(WeightsError, match=words):
        load_swin_weights(model, state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_weights_of_another_model_are_a_short_message() -> None:
    with pytest.raises(WeightsError) as caught:
        load_swin_weights(small(), {f"encoder.{i}.projection.weight": torch.ones(3, 3) for i in range(99)})
    head, *lines = str(caught.value).splitlines()
    assert "0 of its" in head and [line.split()[1] for line in lines] == ["missing:", "surplus:"]
    assert all(line.endswith("more") for line in lines) and sum(map(len, lines)) < 800


def test_unreadable_files_name_their_path(tmp_path: Path) -> None:
    class Strange:
        pass

    bad = tmp_path / "bad.pth"
    bad.write_bytes(b"no weights")
    tensors = tmp_path / "bad.safetensors"
    tensors.write_bytes(b"no weights")
    objects = tmp_path / "objects.pth"
    torch.save({"model": {"a": slice(3)}}, objects)
    for path in (bad, tensors, objects, tmp_path / "none.pth", tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(WeightsError, match=path.name):
            load_swin_weights(small(), path)
    for state in ({}, {"model": 3}, {"model": {"epoch": 3}}):
        with pytest.raises(WeightsError, match="state dict"):
            load_swin_weights(small(), state)


def test_half_precision_weights_are_widened() -> None:
    source, model = small().half(), small()
    load_swin_weights(model, source.state_dict())
    assert model.norm.weight.dtype == torch.float32
    assert torch.equal(model.patch_embed.proj.weight, source.patch_embed.proj.weight.float())
