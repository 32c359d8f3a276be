"""Parameter groups and the optimizer, with a state that is stored under parameter names."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import zip_longest
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_info, param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from engine.config.optimization import CommonOptimizer, OptimizerConfig
from engine.config.training import FinetuneConfig
from engine.errors import UserError
from engine.model.stages import HEAD, stages

FUSED = (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD)
"""Optimizers of torch whose whole step is one kernel, on GPUs and CPUs, which can leave it out by itself."""


def parameter_groups(model: nn.Module, optimizer: CommonOptimizer, finetune: FinetuneConfig) -> list[dict[str, Any]]:
    """Returns groups of what is to be trained, each with its own ``weight_decay`` and ``lr_scale``.

    Vectors (norms, biases) and what ``model.no_weight_decay()`` names are not decayed, unless the configuration says
    so. With layer-wise decay (Bao et al., BEiT, 2022) the rate of layer i of L is ``layer_decay ** (L - i)`` of the
    base rate; the layers come from ``model.group_matcher``. What lies before the head (see
    :func:`engine.model.stages.stages`) has ``backbone_lr_scale`` of that rate, and a weight decay of its own.

    Raises:
        UserError: head and backbone are to differ, but the model does not say which is which.
    """
    spared: Collection[str] = () if optimizer.decay_norm_and_bias else getattr(model, "no_weight_decay", tuple)()
    common: dict[str, Any] = {
        "weight_decay": 1.0,  # tells what is decayed; how much follows
        "weight_decay_exclude_1d": not optimizer.decay_norm_and_bias,
        "no_weight_decay_list": spared,
    }
    if finetune.layer_decay is None:
        groups = param_groups_weight_decay(model, **common)
    else:
        groups = param_groups_layer_decay(model, layer_decay=finetune.layer_decay, **common)
    backbone: set[int] = set()
    if finetune.sets_head_apart:
        head = set(stages(model)[HEAD])
        backbone = {id(parameter) for name, parameter in model.named_parameters() if name not in head}
    backbone_decay = finetune.backbone_weight_decay
    if backbone_decay is None:
        backbone_decay = optimizer.weight_decay
    divided: dict[tuple[Any, ...], dict[str, Any]] = {}
    for group in groups:
        others = {key: value for key, value in group.items() if key not in ("params", "lr_scale", "weight_decay")}
        for parameter in group["params"]:
            in_backbone = id(parameter) in backbone
            scale = group.get("lr_scale", 1.0) * (finetune.backbone_lr_scale if in_backbone else 1.0)
            decay = group["weight_decay"] * (backbone_decay if in_backbone else optimizer.weight_decay)
            settings = {"lr_scale": scale, "weight_decay": decay, **others}
            divided.setdefault(tuple(settings.items()), {"params": [], **settings})["params"].append(parameter)
    return list(divided.values())


def build_optimizer(model: nn.Module, config: OptimizerConfig, finetune: FinetuneConfig) -> torch.optim.Optimizer:
    """Builds timm's optimizer of that name over :func:`parameter_groups`.

    Raises:
        UserError: the optimizer needs a package or a device that is not there.
    """
    own = config.model_dump(include={"momentum", "betas", "eps"}, exclude_none=True)
    options: dict[str, Any] = {key: tuple(value) if key == "betas" else value for key, value in own.items()}
    if get_optimizer_info(config.name).opt_class in FUSED:
        options["fused"] = True
    groups = parameter_groups(model, config, finetune)
    try:
        optimizer = create_optimizer_v2(groups, opt=config.name, lr=config.lr, **options)
    except (AssertionError, ValueError) as error:  # by an assertion timm says that a package or a GPU is missing
        raise UserError(f"optimizer.name: '{config.name}' cannot be used here: {error}") from None
    _start_momentum(optimizer)
    return optimizer


def add_parameters(
    optimizer: torch.optim.Optimizer, model: nn.Module, config: CommonOptimizer, finetune: FinetuneConfig
) -> None:
    """Takes what has been unfrozen into ``optimizer``, in groups of its own.

    So step counts that an optimizer keeps for a group, from which it corrects its young averages, begin anew with it.
    """
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for group in parameter_groups(model, config, finetune):
        if fresh := [parameter for parameter in group["params"] if id(parameter) not in known]:
            optimizer.add_param_group({**group, "params": fresh})
            added, first = optimizer.param_groups[-1], optimizer.param_groups[0]
            for key in optimizer.defaults.keys() - first.keys():  # torch adds some when it loads a state
                del added[key]
    _start_momentum(optimizer)


def _start_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Gives torch's fused SGD the momentum 0 that it starts from.

    It would leave the memory as it finds it where its first step is one that the device leaves out.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            if "momentum_buffer" not in optimizer.state[parameter]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def step_unless(skipped: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Makes an optimizer step, which changes neither weights nor state if ``skipped`` is 1.

    Torch's fused optimizers leave that to the device. For all others the host has to wait for the answer.

    Args:
        skipped: 0-dim float32, on the parameters' device: 1 or 0.
    """
    if optimizer.defaults.get("fused"):
        optimizer.found_inf = skipped  # type: ignore[attr-defined]
        optimizer.step()
    elif not skipped.item():
        optimizer.step()


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets every group's rate to ``rate`` times the group's own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def named_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Any]:
    """Returns the optimizer's state with parameter names of ``model`` in place of torch's running numbers.

    Returns ``{"state": {name: {...}}, "groups": [{..., "params": [name, ...]}]}``.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [
        {**{k: v for k, v in group.items() if k != "params"}, "params": [names[id(p)] for p in group["params"]]}
        for group in optimizer.param_groups
    ]
    order = [name for group in groups for name in group["params"]]
    state = optimizer.state_dict()["state"]
    return {"state": {order[number]: entry for number, entry in state.items()}, "groups": groups}


def load_named_state(optimizer: torch.optim.Optimizer, model: nn.Module, saved: dict[str, Any]) -> None:
    """Reads back what :func:`named_state` returned.

    Raises:
        KeyError: the saved state does not belong to these parameters; the text names the first few that differ.
    """
    current = named_state(optimizer, model)
    names = ([set(group["params"]) for group in each["groups"]] for each in (current, saved))
    for mine, found in zip_longest(*names, fillvalue=set[str]()):
        if mine != found:
            missing, surplus = sorted(mine - found)[:5], sorted(found - mine)[:5]
            raise KeyError(f"optimizer state: missing for {missing}, surplus for {surplus}")
    number = {name: i for i, name in enumerate(n for group in current["groups"] for n in group["params"])}
    numbered = [
        {**{k: v for k, v in theirs.items() if k != "params"}, "params": [number[name] for name in ours["params"]]}
        for ours, theirs in zip(current["groups"], saved["groups"], strict=True)
    ]
    state = {number[name]: entry for name, entry in saved["state"].items()}
    optimizer.load_state_dict({"state": state, "param_groups": numbered})
    for parameter, entry in optimizer.state.items():
        for key, value in entry.items():
            # A fused step goes through the memory of all of them as it comes: they have to be laid out alike.
            like = isinstance(value, torch.Tensor) and value.shape == parameter.shape
            if like and value.stride() != parameter.stride():
                entry[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        if isinstance(optimizer, torch.optim.NAdam):
            entry["mu_product"] = entry["mu_product"].cpu()  # where it began, and each step reads it


def advances_each_by_itself(build: Callable[[nn.Module], torch.optim.Optimizer], device: torch.device) -> bool:
    """Returns whether an optimizer's step of one parameter is the same, bit for bit, whatever the others are and do.

    It is tried: there is no list of those that are not, such as LAMB, which clips the gradient as a whole.
    """
    (together, groups, _), (single, groups_alone, waits) = (
        _three_steps(build, device, alone) for alone in (False, True)
    )
    return waits and torch.equal(together, single) and groups == groups_alone


def _three_steps(
    build: Callable[[nn.Module], torch.optim.Optimizer], device: torch.device, alone: bool
) -> tuple[torch.Tensor, str, bool]:
    """Returns a weight after three steps, the optimizer's own numbers, and whether these made no state for the bias.

    Args:
        alone: whether the bias has no gradients.
    """
    model = nn.Linear(3, 4, device="meta").to_empty(device=device)  # draws no random numbers
    nn.init.constant_(model.weight, 0.5)
    nn.init.constant_(model.bias, 0.5)
    optimizer = build(model)
    if alone:
        optimizer.state.pop(model.bias, None)
    for step in range(1, 4):
        model.weight.grad = torch.linspace(-step, 9, 12, device=device).view(4, 3)
        model.bias.grad = None if alone else torch.linspace(-5, step, 4, device=device)
        optimizer.step()
    numbers = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    return model.weight.detach(), repr(numbers), model.bias not in optimizer.state
