"""Parameter groups of real models, and optimizers that go on from a saved state as if never interrupted."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from torch import nn

from engine.config.load import load_config
from engine.config.optimization import OptimizerConfig
from engine.config.run import RunConfig
from engine.config.training import FinetuneConfig
from engine.errors import UserError
from engine.training.optimizer import (
    build_optimizer,
    load_named_state,
    named_state,
    parameter_groups,
    set_rate,
    step_unless,
)
from swin import swin_tiny
from tests.sections import section

PLAIN = FinetuneConfig()


def tiny_swin() -> nn.Module:
    return swin_tiny(num_classes=5, embed_dim=8, depths=(2, 2), num_heads=(1, 2), window_size=2, img_size=16)


def tiny_vit() -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3, embed_dim=12, num_heads=2, num_classes=5)


def by_name(model: nn.Module, groups: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each trained parameter's group; none stands in two."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    listed = [(names[id(parameter)], group) for group in groups for parameter in group["params"]]
    found = dict(listed)
    assert len(found) == len(listed)
    return found


# -- groups ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build, spared",
    [
        (tiny_swin, ("bias", "norm", "relative_position_bias_table")),
        (tiny_vit, ("bias", "norm", "pos_embed", "cls_token")),
        (lambda: timm.create_model("test_byobnet", num_classes=5), ("bias", "bn", "norm")),
    ],
    ids=["swin", "timm vit", "timm convnet"],
)
@pytest.mark.parametrize("layer_decay", [None, 0.7])
def test_norms_biases_and_position_tables_are_not_decayed(
    build: Any, spared: tuple[str, ...], layer_decay: float | None
) -> None:
    model, config = build(), section(OptimizerConfig, weight_decay=0.1)
    groups = by_name(model, parameter_groups(model, config, FinetuneConfig(layer_decay=layer_decay)))
    assert set(groups) == {name for name, _ in model.named_parameters()}
    decayed = {name for name, group in groups.items() if group["weight_decay"] == 0.1}
    assert {group["weight_decay"] for group in groups.values()} == {0.0, 0.1}
    for name, parameter in model.named_parameters():
        is_spared = name.endswith(spared) or parameter.ndim == 1
        assert (name in decayed) == (not is_spared), name


@pytest.mark.parametrize("layer_decay", [None, 0.7])
def test_all_is_decayed_if_wanted(layer_decay: float | None) -> None:
    model, config = tiny_swin(), section(OptimizerConfig, weight_decay=0.1, decay_norm_and_bias=True)
    groups = parameter_groups(model, config, FinetuneConfig(layer_decay=layer_decay))
    assert {group["weight_decay"] for group in groups} == {0.1}


def test_frozen_parameters_are_left_out() -> None:
    model = tiny_swin()
    frozen = {name for name, parameter in model.named_parameters() if name.startswith("layers.0")}
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    groups = by_name(model, parameter_groups(model, section(OptimizerConfig), PLAIN))
    assert frozen and set(groups) == {name for name, _ in model.named_parameters()} - frozen


def test_layers_of_swin_have_rates_of_their_own() -> None:
    model = tiny_swin()
    groups = by_name(model, parameter_groups(model, section(OptimizerConfig), FinetuneConfig(layer_decay=0.5)))
    expected = {  # stem, four blocks, head; as in timm's models the last norm counts with the last block
        "patch_embed.": 0.5**5,
        "layers.0.blocks.0.": 0.5**4,
        "layers.0.blocks.1.": 0.5**3,
        "layers.0.downsample.": 0.5**3,
        "layers.1.blocks.0.": 0.5**2,
        "layers.1.blocks.1.": 0.5**1,
        "norm.": 0.5**1,
        "head.": 1.0,
    }
    for name, group in groups.items():
        (prefix,) = [prefix for prefix in expected if name.startswith(prefix)]
        assert group["lr_scale"] == pytest.approx(expected[prefix]), name


def test_layers_of_a_timm_model_have_rates_of_their_own() -> None:
    model = tiny_vit()
    groups = by_name(model, parameter_groups(model, section(OptimizerConfig), FinetuneConfig(layer_decay=0.5)))
    scales = [groups[f"blocks.{i}.attn.qkv.weight"]["lr_scale"] for i in range(3)]
    assert groups["head.weight"]["lr_scale"] == 1.0
    assert scales == pytest.approx([0.125, 0.25, 0.5])
    assert groups["norm.weight"]["lr_scale"] == scales[-1]
    assert groups["patch_embed.proj.weight"]["lr_scale"] == groups["pos_embed"]["lr_scale"] == scales[0] / 2


def test_rates_are_set_by_scale() -> None:
    model = tiny_swin()
    optimizer = build_optimizer(model, section(OptimizerConfig, lr=0.5), FinetuneConfig(layer_decay=0.5))
    set_rate(optimizer, 0.2)
    assert all(group["lr"] == 0.2 * group["lr_scale"] for group in optimizer.param_groups)
    assert len({group["lr"] for group in optimizer.param_groups}) == 6
    plain = build_optimizer(model, section(OptimizerConfig, lr=0.5), PLAIN)
    assert [group["lr"] for group in plain.param_groups] == [0.5, 0.5]
    set_rate(plain, 0.2)
    assert [group["lr"] for group in plain.param_groups] == [0.2, 0.2]


# -- building --------------------------------------------------------------------------------------------------------


def test_settings_reach_the_optimizer() -> None:
    model = nn.Linear(3, 2)
    adamw = build_optimizer(model, section(OptimizerConfig, lr=0.3, betas=[0.8, 0.9], eps=1e-5), PLAIN)
    assert isinstance(adamw, torch.optim.AdamW)
    assert all((g["lr"], g["betas"], g["eps"]) == (0.3, (0.8, 0.9), 1e-5) for g in adamw.param_groups)
    sgd = build_optimizer(model, section(OptimizerConfig, name="momentum", momentum=0.7), PLAIN)
    assert isinstance(sgd, torch.optim.SGD)
    assert all((g["momentum"], g["nesterov"]) == (0.7, False) for g in sgd.param_groups)


@pytest.mark.parametrize(
    "settings, text",
    [
        ({"name": "adahessian"}, r"optimizer\.name: 'adahessian' needs second derivatives"),
        ({"betas": [0.9]}, r"optimizer\.betas: must be a list of 2 values, not of 1"),
        ({"name": "adan", "betas": [0.9, 0.9]}, r"optimizer\.betas: 'adan' takes 3 numbers, not 2"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_with_its_line(tmp_path: Path, settings: dict[str, Any], text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"optimizer": settings}, sort_keys=False))
    line = list(settings).index(re.findall(r"optimizer\\.(\w+)", text)[0]) + 2
    with pytest.raises(UserError, match=rf"run\.yaml:{line}: {text}"):
        load_config(RunConfig, path)


def test_an_optimizer_that_needs_what_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if "fusedadamw" not in timm.optim.list_optimizers():
        pytest.skip("this timm has no fused optimizers")
    with pytest.raises(UserError, match=r"optimizer\.name: 'fusedadamw' cannot be used here: \w+"):
        build_optimizer(nn.Linear(3, 2), section(OptimizerConfig, name="fusedadamw"), PLAIN)


# -- state -----------------------------------------------------------------------------------------------------------


def step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    torch.manual_seed(number)
    set_rate(optimizer, 0.01 / (number + 1))
    model(torch.randn(2, 3, 16, 16)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def through_a_file(content: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def are_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and are_plain(entry) for key, entry in value.items())
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and all(map(are_plain, value))
    return value is None or type(value) in (torch.Tensor, bool, int, float, str)


@pytest.mark.parametrize("layer_decay", [None, 0.6], ids=["2 groups", "12 groups"])
@pytest.mark.parametrize("name", ["adamw", "momentum", "sgd", "lamb", "adafactor", "lion", "muon"])
def test_a_saved_optimizer_goes_on_bit_by_bit(name: str, layer_decay: float | None) -> None:
    config, finetune = section(OptimizerConfig, name=name), FinetuneConfig(layer_decay=layer_decay)
    torch.manual_seed(0)
    model = tiny_swin().eval()  # no drop-path
    optimizer = build_optimizer(model, config, finetune)
    for number in range(3):
        step(model, optimizer, number)
    state = named_state(optimizer, model)
    assert are_plain(state)
    saved = through_a_file({"model": model.state_dict(), "optimizer": state})

    resumed = tiny_swin().eval()
    resumed.load_state_dict(saved["model"])
    again = build_optimizer(resumed, config, finetune)
    load_named_state(again, resumed, saved["optimizer"])
    fresh = build_optimizer(resumed, config, finetune)
    for number in range(3, 6):
        step(model, optimizer, number)
        step(resumed, again, number)
    theirs = resumed.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in model.state_dict().items())
    ours, theirs = named_state(optimizer, model), named_state(again, resumed)
    assert ours["groups"] == theirs["groups"] and ours["state"].keys() == theirs["state"].keys()
    for key, entry in ours["state"].items():
        for part, value in entry.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(theirs["state"][key][part])), (key, part)
    held = [value for entry in ours["state"].values() for value in entry.values() if isinstance(value, torch.Tensor)]
    assert all(value.any() for value in held) and held, "a state that holds nothing would prove nothing"
    assert not any(value.any() for entry in fresh.state.values() for value in entry.values())


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_state_of_another_memory_layout_is_laid_out_as_its_parameters(name: str) -> None:
    """A fused step takes the memory of all as it comes: on a CPU it would be wrong without a word."""
    config, models = section(OptimizerConfig, name=name), [nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)]
    models[1].load_state_dict(models[0].state_dict())
    models[1].to(memory_format=torch.channels_last)
    optimizers = [build_optimizer(model, config, PLAIN) for model in models]
    images = torch.randn(2, 3, 5, 5)
    models[0](images).square().sum().backward()
    optimizers[0].step()
    models[1].load_state_dict(models[0].state_dict())
    load_named_state(optimizers[1], models[1], through_a_file(named_state(optimizers[0], models[0])))
    for model, optimizer in zip(models, optimizers, strict=True):
        optimizer.zero_grad()
        model(images).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(models[1].weight, models[0].weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name, fused", [("adamw", True), ("sgd", True), ("momentum", True), ("lamb", False)])
def test_a_skipped_step_changes_neither_weights_nor_state(name: str, fused: bool) -> None:
    model = nn.Linear(4, 3)
    optimizer = build_optimizer(model, section(OptimizerConfig, name=name), PLAIN)
    assert bool(optimizer.defaults.get("fused")) == fused

    def backward(factor: float) -> None:
        optimizer.zero_grad()
        (factor * model(torch.ones(2, 4)).square().sum()).backward()

    backward(float("nan"))
    start = [parameter.detach().clone() for parameter in model.parameters()]
    step_unless(torch.tensor(1.0), optimizer)
    assert all(torch.equal(parameter, old) for parameter, old in zip(model.parameters(), start, strict=True))
    backward(1.0)
    step_unless(torch.tensor(0.0), optimizer)
    other = nn.Linear(4, 3)
    with torch.no_grad():
        for parameter, old in zip(other.parameters(), start, strict=True):
            parameter.copy_(old)
    never_skipped = build_optimizer(other, section(OptimizerConfig, name=name), PLAIN)
    other(torch.ones(2, 4)).square().sum().backward()
    step_unless(torch.tensor(0.0), never_skipped)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.parameters(), other.parameters(), strict=True))
    assert not torch.equal(model.weight, start[0])


def test_state_is_kept_under_names() -> None:
    model: Any = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    optimizer = build_optimizer(model, section(OptimizerConfig), PLAIN)
    model(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    state = named_state(optimizer, model)
    assert [group["params"] for group in state["groups"]] == [["0.bias", "1.weight", "1.bias"], ["0.weight"]]
    assert set(state["state"]) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert torch.equal(state["state"]["0.weight"]["exp_avg"], optimizer.state[model[0].weight]["exp_avg"])


def test_parameters_that_never_had_a_gradient_have_no_state() -> None:
    model = nn.ModuleDict({"used": nn.Linear(2, 2), "idle": nn.Linear(2, 2)})
    optimizer = build_optimizer(model, section(OptimizerConfig), PLAIN)
    model["used"](torch.randn(1, 2)).sum().backward()
    optimizer.step()
    saved = through_a_file(named_state(optimizer, model))
    assert set(saved["state"]) == {"used.weight", "used.bias"}
    load_named_state(build_optimizer(model, section(OptimizerConfig), PLAIN), model, saved)


def test_the_order_of_parameters_does_not_matter() -> None:
    model: Any = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    turned: Any = nn.ModuleDict({"b": nn.Linear(2, 2), "a": nn.Linear(2, 2)})
    optimizer = build_optimizer(model, section(OptimizerConfig), PLAIN)
    (model["a"](torch.randn(1, 2)).sum() + 2 * model["b"](torch.randn(1, 2)).sum()).backward()
    optimizer.step()
    loaded = build_optimizer(turned, section(OptimizerConfig), PLAIN)
    load_named_state(loaded, turned, named_state(optimizer, model))
    for name in ("a", "b"):
        ours, theirs = optimizer.state[model[name].weight], loaded.state[turned[name].weight]
        assert torch.equal(ours["exp_avg"], theirs["exp_avg"])


@pytest.mark.parametrize(
    "other, text",
    [
        (nn.ModuleDict({"a": nn.Linear(2, 2), "c": nn.Linear(2, 2)}), r"missing for \['c.*surplus for \['b"),
        (nn.ModuleDict({"a": nn.Linear(2, 2)}), r"missing for \[\], surplus for \['b"),
    ],
    ids=["another name", "one less"],
)
def test_a_state_of_another_model_is_refused_by_name(other: nn.Module, text: str) -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    saved = named_state(build_optimizer(model, section(OptimizerConfig), PLAIN), model)
    with pytest.raises(KeyError, match=text):
        load_named_state(build_optimizer(other, section(OptimizerConfig), PLAIN), other, saved)


def test_a_state_with_other_groups_is_refused() -> None:
    model = tiny_swin()
    saved = named_state(build_optimizer(model, section(OptimizerConfig), FinetuneConfig(layer_decay=0.5)), model)
    with pytest.raises(KeyError, match="optimizer state: missing for"):
        load_named_state(build_optimizer(model, section(OptimizerConfig), PLAIN), model, saved)
