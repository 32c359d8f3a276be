"""Weights from files, into models of timm's protocol."""

from __future__ import annotations

import io
import logging
import pickle
import textwrap
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import nn

from engine.config.training import FinetuneConfig
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.model.pretrained import SHOWN, build_alike, load_weights, read_weights
from tests.distributed import run_ranks

NAME = "test_byobnet"
"""A convolutional model of timm with batch norm, 0.4 million parameters."""


def create(num_classes: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(NAME, num_classes=num_classes)


def plain(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


# -- reading ---------------------------------------------------------------------------------------------------------


def test_half_precision_safetensors(tmp_path: Path) -> None:
    source, model = create(7), create(7, seed=1)
    halved = {name: value.half() if value.is_floating_point() else value for name, value in plain(source).items()}
    save_file(halved, tmp_path / "weights.safetensors")
    load_weights(model, read_weights(tmp_path / "weights.safetensors").state, "weights")
    for name, value in model.state_dict().items():
        assert torch.equal(value, halved[name].to(value.dtype)), name
        assert value.dtype == source.state_dict()[name].dtype


def test_pretrained_weights_of_a_real_model() -> None:
    path = Path(__file__).resolve().parents[3] / ".." / "shared" / "weights" / "tf_efficientnet_lite0.safetensors"
    if not path.exists():
        pytest.skip("no pretrained weights beside this checkout")
    model = timm.create_model("tf_efficientnet_lite0", num_classes=10)
    fresh = plain(model)
    load_weights(model, read_weights(path).state, path.name)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, fresh[name])}
    assert {name for name, _ in model.named_parameters()} - changed <= {"classifier.bias"}  # which was zero already
    assert_starts_small(model.classifier)


@pytest.mark.parametrize("entry", [None, "model", "state_dict", "ema"])
def test_state_dicts_and_those_within_checkpoints(entry: str | None, tmp_path: Path) -> None:
    state = plain(create(7))
    torch.save({entry: state, "epoch": 3} if entry else state, tmp_path / "weights.pth")
    assert same(read_weights(tmp_path / "weights.pth").state, state)


def test_the_moving_average_is_preferred(tmp_path: Path) -> None:
    model, average = plain(create(7)), plain(create(7, seed=1))
    torch.save({"format": 1, "model": model, "ema": average, "optimizer": {}}, tmp_path / "with.pt")
    torch.save({"format": 1, "model": model, "ema": None, "optimizer": {}}, tmp_path / "without.pt")
    assert same(read_weights(tmp_path / "with.pt").state, average)
    assert same(read_weights(tmp_path / "without.pt").state, model)


@pytest.mark.parametrize("content", [[1, 2], {"lr": 0.1}, {"model": {"weight": "text"}}, torch.ones(3)], ids=str)
def test_what_is_no_state_dict_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt is neither a state dict nor a checkpoint"):
        read_weights(tmp_path / "other.pt")


def state_file() -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": torch.ones(1000)}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"x", b"no weights", state_file()[:2000]], ids=["empty", "x", "text", "torn"])
def test_damaged_files_are_refused(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"other{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"finetune\.weights: {path} (cannot be read: \S+|is no file of weights)"):
        read_weights(path)


@pytest.mark.parametrize("name", ["absent.pt", "absent.safetensors"])
def test_missing_files_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"finetune\.weights: no file {tmp_path / name}"):
        read_weights(tmp_path / name)


class Harmful:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, 2))])
def test_code_is_refused_and_does_not_run(save: Any, tmp_path: Path) -> None:
    save({"model": {"weight": Harmful(tmp_path / "harm")}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="holds more than plain tensors; such files are not loaded"):
        read_weights(tmp_path / "other.pt")
    assert not (tmp_path / "harm").exists()


# -- loading ---------------------------------------------------------------------------------------------------------


def test_the_same_classes_are_loaded_whole(caplog: pytest.LogCaptureFixture) -> None:
    source, model = create(7), create(7, seed=1)
    with caplog.at_level(logging.INFO):
        load_weights(model, plain(source), "weights")
    assert same(plain(model), plain(source))
    assert caplog.messages == []


def assert_starts_small(classifier: torch.nn.Linear) -> None:
    assert classifier.bias.eq(0).all()
    assert 0 < classifier.weight.abs().max() < 0.05


def test_a_classifier_of_other_classes_starts_near_zero(caplog: pytest.LogCaptureFixture) -> None:
    source, model = create(7), create(3, seed=1)
    theirs = plain(source)
    with caplog.at_level(logging.INFO):
        load_weights(model, theirs, "weights.pt")
    for name, value in model.state_dict().items():
        assert name.startswith("head.fc.") or torch.equal(value, theirs[name]), name
    assert_starts_small(model.head.fc)
    assert caplog.messages == ["weights.pt has 7 classes, the model 3: its classifier starts anew"]


def test_models_with_two_classifiers() -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"img_size": 32, "depth": 1, "embed_dim": 12, "num_heads": 2}
    source = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=7, **options)
    model = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=3, **options)
    load_weights(model, plain(source), "weights")
    for name, value in model.state_dict().items():
        assert name.startswith("head") or torch.equal(value, plain(source)[name]), name
    assert_starts_small(model.head)
    assert_starts_small(model.head_dist)


def test_counters_of_batches_may_be_missing() -> None:
    source, model = plain(create(7)), create(7, seed=1)
    load_weights(model, {name: value for name, value in source.items() if "num_batches" not in name}, "weights")
    assert torch.equal(model.state_dict()["stem.conv.weight"], source["stem.conv.weight"])


def test_all_that_does_not_fit_is_named_and_nothing_is_loaded() -> None:
    model, state = create(7, seed=1), plain(create(7))
    fresh = plain(model)
    del state["stem.bn.weight"]
    state["decoder.weight"] = torch.ones(2)
    state["stem.conv.weight"] = torch.ones(1, 2)
    with pytest.raises(UserError) as caught:
        load_weights(model, state, "weights.pt")
    shape = tuple(fresh["stem.conv.weight"].shape)
    vector = tuple(fresh["stem.bn.weight"].shape)
    assert str(caught.value).splitlines() == [
        f"finetune.weights: weights.pt does not fit ByobNet: {len(fresh) - 2} of its {len(fresh)} tensors fit",
        f"  1 missing: stem.bn.weight {vector}",
        "  1 surplus: decoder.weight (2,)",
        f"  1 of another shape: stem.conv.weight (1, 2) instead of {shape}",
    ]
    assert same(plain(model), fresh)


@pytest.mark.parametrize("name", ["test_vit", "test_vit3"])
def test_positions_of_another_size_are_interpolated_as_timm_does(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    source = timm.create_model(name, num_classes=3, img_size=64)
    model = timm.create_model(name, num_classes=3, img_size=(96, 48))
    with torch.no_grad():
        source.pos_embed.normal_()
    with caplog.at_level(logging.INFO, "engine"):
        load_weights(model, plain(source), "vit.pth")
    expected = checkpoint_filter_fn(plain(source), model)["pos_embed"]
    assert torch.equal(model.pos_embed, expected) and model.pos_embed.shape != source.pos_embed.shape
    others = {key: value for key, value in plain(source).items() if key != "pos_embed"}
    assert all(torch.equal(model.state_dict()[key], value) for key, value in others.items())
    assert caplog.messages == ["vit.pth has positions of 4 x 4 patches, interpolated to 6 x 3"]


def test_positions_that_cannot_be_interpolated_are_refused() -> None:
    wide = timm.create_model("test_vit", num_classes=3, img_size=(96, 48))
    model = timm.create_model("test_vit", num_classes=3, img_size=64)
    with pytest.raises(UserError, match=r"1 of another shape: pos_embed \(1, 19, 64\) instead of \(1, 17, 64\)"):
        load_weights(model, plain(wide), "vit.pth")


def test_a_classifier_of_other_features_is_misshapen() -> None:
    model, state = create(7), plain(create(7))
    state["head.fc.weight"] = torch.ones(9, 5)
    with pytest.raises(UserError, match=r"another shape: head\.fc\.weight \(9, 5\) instead of \(7, \d+\)"):
        load_weights(model, state, "weights.pt")


def test_a_missing_classifier_is_named() -> None:
    state = {name: value for name, value in plain(create(7)).items() if not name.startswith("head.fc")}
    with pytest.raises(UserError, match=r"2 missing: head\.fc\.weight \(7, \d+\), head\.fc\.bias \(7,\)$"):
        load_weights(create(7), state, "weights.pt")


def test_long_lists_are_cut() -> None:
    model = create(7)
    others = {f"encoder.layers.0.blocks.0.attention.projection.{i}.weight": torch.ones(9, 9) for i in range(99)}
    misshapen = {name: torch.ones(1, 2, 3, 4, 5) for name in list(plain(model))[:50]}
    with pytest.raises(UserError) as caught:
        load_weights(model, {**others, **misshapen}, "weights.pt")
    head, *lines = str(caught.value).splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line.count("weight") + line.count("bias") + line.count("running") <= SHOWN and " more" in line
    assert sum(len(textwrap.wrap(line, 100)) for line in (head, *lines)) <= 12


# -- several ranks -----------------------------------------------------------------------------------------------------


def built_alike(ranks: Ranks, file: str) -> list[Any]:
    """The model's tensors, what this rank was told to start from, and how a file that is none ends."""
    asked: list[bool] = []

    def build(finetune: FinetuneConfig) -> nn.Module:
        asked.append(finetune.weights is not None)
        model = create(3, seed=ranks.rank)
        if isinstance(finetune.weights, Path):
            load_weights(model, read_weights(finetune.weights).state, "file")
        return model

    model = build_alike(build, FinetuneConfig(weights=Path(file)), ranks)
    with pytest.raises(UserError) as caught:
        build_alike(build, FinetuneConfig(weights=Path("gone.pt")), ranks)
    return [model.state_dict(), asked, str(caught.value)]


def test_one_rank_reads_weights_for_all(tmp_path: Path) -> None:
    wanted = plain(create(3, seed=9))
    torch.save(wanted, tmp_path / "file.pt")
    for rank, (state, asked, error) in enumerate(run_ranks(2, built_alike, str(tmp_path / "file.pt"))):
        assert same(wanted, state)
        assert asked == ([True, True] if rank == 0 else [False])
        assert error.startswith("finetune.weights: no file ") and error.endswith("gone.pt")
