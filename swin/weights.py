"""Loads pretrained weights by Microsoft, timm, torchvision or ourselves into a model of this package."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from swin.adapt import may_be_fresh, with_last_norm, with_resized_tables, without_later_stages, without_other_classifier
from swin.model import SwinBackbone, init_weights
from swin.names import to_own_names

logger = logging.getLogger(__name__)

SHOWN = 4
"""Keys of one kind that a message lists."""


class WeightsError(ValueError):
    """The weights cannot be read or do not fit the model; the text names keys and shapes."""


@dataclass(frozen=True)
class LoadReport:
    """Report of what :func:`load_swin_weights` did with each key, under the model's own names."""

    source: str
    """Whose names the weights had: "microsoft" (ours too), "timm" or "torchvision"."""
    loaded: list[str]
    """Copied as they were."""
    interpolated: list[str]
    """Bias tables of another window, resized."""
    initialised: list[str]
    """Freshly initialised: a classifier of other classes, norms of feature maps."""
    ignored: list[str]
    """In the weights and not used: what lies behind the last stage in use."""


def load_swin_weights(model: SwinBackbone, weights: str | Path | Mapping[str, Any]) -> LoadReport:
    """Copies weights into `model`, in place.

    A classifier of another class count is initialised anew, bias tables of another window are interpolated, what lies
    behind the last stage in use is ignored; feature maps have norms of their own, which a classifier lacks. Each of
    these is logged in one line and listed in the report.

    Args:
        model: A classifier or a feature pyramid.
        weights: A file (.safetensors; anything else is read by ``torch.load(weights_only=True)``) or a state dict, bare
            or under the key ``model`` or ``state_dict``.

    Raises:
        WeightsError: for a file that cannot be read, and for weights that lack other parameters, have others or have
            other shapes. The model is untouched then.
    """
    source, given = to_own_names(_unwrap(_read(Path(weights)) if isinstance(weights, str | Path) else weights))
    given = with_last_norm(model, given)
    fitting = without_other_classifier(model, without_later_stages(model, given))
    state = with_resized_tables(model, fitting)
    wanted = model.state_dict()  # parameters, and the statistics that a head with batch norm has
    fresh = [name for name in wanted if name not in state and may_be_fresh(name, state, given.keys() - state.keys())]
    _check(wanted, state, fresh)
    with torch.no_grad():
        for name, tensor in state.items():
            wanted[name].copy_(tensor)
    for layer in dict.fromkeys(name.rpartition(".")[0] for name in fresh):
        init_weights(model.get_submodule(layer))
    interpolated = [name for name in state if state[name] is not fitting[name]]
    report = LoadReport(
        source=source,
        loaded=[name for name in state if name not in interpolated],
        interpolated=interpolated,
        initialised=fresh,
        ignored=[name for name in given if name not in state and name not in fresh],
    )
    _log(report)
    return report


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path}: not a file of plain tensors, and nothing else is loaded: {error}") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, SafetensorError) as error:
        raise WeightsError(f"{path}: cannot be read as weights: {error}") from error


def _unwrap(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns the state dict itself, taken out of a checkpoint where it is an entry."""
    for entry in ("model", "state_dict"):
        if isinstance(weights, Mapping) and isinstance(weights.get(entry), Mapping):
            weights = weights[entry]
    if not isinstance(weights, Mapping) or not weights:
        raise WeightsError("the weights are no state dict (names to tensors), nor do they hold one as 'model'")
    strange = [name for name, value in weights.items() if not isinstance(value, Tensor)]
    if strange:
        raise WeightsError(f"the state dict holds something else than tensors: {_listed(strange)}")
    return dict(weights)


def _check(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], fresh: list[str]) -> None:
    known = {*state, *fresh}
    shared = [name for name in wanted if name in state]
    misshapen = [name for name in shared if state[name].shape != wanted[name].shape]
    problems = {
        "missing": [f"{name} {tuple(wanted[name].shape)}" for name in wanted if name not in known],
        "surplus": [f"{name} {tuple(state[name].shape)}" for name in state if name not in wanted],
        "of another shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}" for name in misshapen
        ],
    }
    lines = [f"\n  {len(names)} {what}: {_listed(names)}" for what, names in problems.items() if names]
    if lines:
        fitting = f"{len(shared) - len(misshapen)} of its {len(wanted)} parameters fit"
        raise WeightsError(f"the weights do not fit this model: {fitting}" + "".join(lines))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f", … and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _log(report: LoadReport) -> None:
    logger.info("weights under the names of %s: %d parameters loaded", report.source, len(report.loaded))
    notes = {
        "bias tables interpolated to this window": report.interpolated,
        "initialised anew": report.initialised,
        "ignored, behind the last stage in use": report.ignored,
    }
    for what, names in notes.items():
        if names:
            logger.info("%s: %s", what, _listed(names))
