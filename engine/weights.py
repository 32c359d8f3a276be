"""Weights from a file into any model that follows timm's protocol."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from engine.checkpoint import first_line
from engine.errors import UserError

log = logging.getLogger(__name__)

SHOWN = 4
"""Keys of one kind that an error names."""


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a .safetensors file, of a plain state dict, or of a checkpoint (its moving average if it has one).

    Raises:
        UserError: the file is missing, unreadable, or holds something else.
    """
    if not path.is_file():
        raise UserError(f"finetune.weights: no file {path}")
    try:
        state: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
        raise UserError(f"finetune.weights: {path} cannot be read: {first_line(error)}") from None
    except Exception as error:  # unpickling refuses in many ways
        raise UserError(
            f"finetune.weights: {path} is no file of weights, is damaged, or holds more than plain tensors; "
            f"such files are not loaded ({type(error).__name__})"
        ) from None
    for entry in ("ema", "model", "state_dict", "state_dict_ema"):
        if isinstance(state, Mapping) and isinstance(state.get(entry), Mapping):
            state = state[entry]
            break
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"finetune.weights: {path} is neither a state dict nor a checkpoint")
    return dict(state)


def load_weights(model: nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Copies ``state`` into ``model``; a classifier of another class count starts anew, near zero, with a log line.

    Raises:
        UserError: keys are missing, surplus or misshapen; each kind is named.
    """
    own = model.state_dict()
    classifier = _classifier_keys(model)
    replaced = [key for key in classifier if key in state and _other_classes(state[key], own[key])]
    if replaced:
        was = state[replaced[0]].shape[0]
        log.info("%s has %d classes, the model %d: its classifier starts anew", source, was, own[replaced[0]].shape[0])
        for key in replaced:
            _start_small(model.get_parameter(key))
    kept = {key: value for key, value in state.items() if key not in replaced}
    counters = [key for key in own if key.endswith("num_batches_tracked")]
    if fault := misfit(own, kept, [*replaced, *counters]):
        raise UserError(f"finetune.weights: {source} does not fit {type(model).__name__}: {fault}")
    model.load_state_dict(kept, strict=False)


def misfit(own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor], fresh: Collection[str] = ()) -> str:
    """How a state dict does not fit a model's, a line for each kind of fault; empty if it fits.

    The model's keys in ``fresh`` may be missing.
    """
    missing = [key for key in own if key not in given and key not in fresh]
    surplus = [key for key in given if key not in own]
    shared = [key for key in own if key in given]
    misshapen = [key for key in shared if given[key].shape != own[key].shape]
    faults = {
        "missing": [f"{key} {tuple(own[key].shape)}" for key in missing],
        "surplus": [f"{key} {tuple(given[key].shape)}" for key in surplus],
        "of another shape": [
            f"{key} {tuple(given[key].shape)} instead of {tuple(own[key].shape)}" for key in misshapen
        ],
    }
    lines = [f"\n  {len(keys)} {kind}: {_some(keys)}" for kind, keys in faults.items() if keys]
    return f"{len(shared) - len(misshapen)} of its {len(own)} tensors fit" + "".join(lines) if lines else ""


def _classifier_keys(model: nn.Module) -> list[str]:
    """Names of the parameters of the model's last layer, or layers where it has several (distilled models)."""
    classifier = model.get_classifier()  # type: ignore[operator]
    layers = classifier if isinstance(classifier, tuple) else (classifier,)
    last = {id(parameter) for layer in layers for parameter in layer.parameters()}
    return [name for name, parameter in model.named_parameters() if id(parameter) in last]


def _other_classes(theirs: torch.Tensor, ours: torch.Tensor) -> bool:
    """Whether two classifier tensors, (classes, ...), differ in the number of classes alone."""
    return theirs.shape != ours.shape and theirs.shape[1:] == ours.shape[1:]


@torch.no_grad()
def _start_small(parameter: nn.Parameter) -> None:
    """So that a trained body is not shaken by the first gradients of a large random classifier."""
    nn.init.zeros_(parameter) if parameter.ndim == 1 else nn.init.trunc_normal_(parameter, std=0.01)


def _some(keys: list[str]) -> str:
    rest = len(keys) - SHOWN
    return ", ".join(keys[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
