"""Weights from a file into any model that follows timm's protocol."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from torch import nn

from engine.checkpoints import store
from engine.checkpoints.store import first_line
from engine.config.training import FinetuneConfig
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.files import other_than_file
from engine.keras_models.weights import is_keras_file
from engine.model.described import classes_of
from engine.model.stages import classifier_paths
from engine.run_folder.paths import RunDir

log = logging.getLogger(__name__)

M = TypeVar("M", bound=nn.Module)

SHOWN = 4
"""Keys of one kind that an error names."""
POSITIONS = "pos_embed"
"""What timm's transformers call their absolute position embeddings."""


def build_alike(build: Callable[[FinetuneConfig], M], finetune: FinetuneConfig, ranks: Ranks) -> M:
    """Builds the same model on every rank, of which rank 0 alone reads or downloads the weights it starts from.

    Args:
        build: Makes the model on the CPU, from torch's global generator where there are no weights.

    Raises:
        UserError: on every rank, as ``build`` raised it on rank 0.
    """
    if finetune.weights is None or ranks.world_size == 1:
        return build(finetune)
    built: list[M] = []

    def start() -> dict[str, torch.Tensor]:
        built.append(build(finetune))
        return built[0].state_dict()

    state = ranks.from_main(start)
    if not built:
        built.append(build(finetune.model_copy(update={"weights": None})))
        built[0].load_state_dict(state)
    return built[0]


class Weights(NamedTuple):
    """Tensors to start from."""

    state: dict[str, torch.Tensor]
    classes: list[str] | None
    """Names of the classes they were trained on, in the order of their numbers; None where the file does not say."""


def read_weights(path: Path) -> Weights:
    """Reads a .safetensors file, a plain state dict, or a checkpoint's weights (its moving average if it has one).

    Args:
        path: The file, or an experiment's folder: then its best checkpoint, or its last one if it has no best yet.

    Raises:
        UserError: the file is missing, unreadable, or holds something else.
    """
    path = weights_file(path)
    if is_keras_file(path):
        raise UserError(f"finetune.weights: {path.name} is a file of Keras's, which models named keras/NAME take")
    log.info("weights to start from: %s", path)
    classes: list[str] | None = None
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
            classes = classes_of(path)
        else:
            state = torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
        raise UserError(f"finetune.weights: {path} cannot be read: {first_line(error)}") from None
    except Exception as error:  # unpickling refuses in many ways
        raise UserError(
            f"finetune.weights: {path} is no file of weights, is damaged, or holds more than plain tensors; "
            f"such files are not loaded ({type(error).__name__})"
        ) from None
    items = state.items() if isinstance(state, Mapping) else ()
    entries = {name: entry for name, entry in items if isinstance(entry, Mapping)}
    classes = entries.get("metadata", {}).get("classes", classes)
    state = next((entries[name] for name in ("ema", "model", "state_dict", "state_dict_ema") if name in entries), state)
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"finetune.weights: {path} is neither a state dict nor a checkpoint")
    return Weights(dict(state), classes)


def weights_file(path: Path) -> Path:
    """Returns the file that ``path`` stands for, see :func:`read_weights`.

    Raises:
        UserError: there is none, or the checkpoint of an experiment is damaged.
    """
    path = _of_experiment(path) if path.is_dir() else path
    if not path.is_file():
        kind = other_than_file(path)
        raise UserError(f"finetune.weights: no file {path}" + f" (it is {kind})" * bool(kind))
    return path


def _of_experiment(folder: Path) -> Path:
    """Returns the checkpoint of an experiment that others start from."""
    if (folder / "saved_model.pb").exists():
        raise UserError(
            f"finetune.weights: {folder} is a SavedModel of TensorFlow's, which is not read; load it with the Keras "
            "that wrote it and save it as a .keras or .h5 file"
        )
    checkpoints = RunDir(folder).checkpoints
    file = next((file for name in ("best.pt", "last.pt") if (file := checkpoints / name).is_file()), None)
    if file is None:
        raise UserError(
            f"finetune.weights: {folder} is a folder, but no experiment with a checkpoint (there is no "
            f"{checkpoints.name}/best.pt or last.pt in it); name an experiment_NNNN or a file"
        )
    if fault := store.verify(file):
        raise UserError(f"finetune.weights: {file} {fault}; name another one of {checkpoints}")
    return file


def load_weights(model: nn.Module, state: Mapping[str, torch.Tensor], source: str, other_classes: bool = False) -> None:
    """Copies ``state`` into ``model``; a classifier of another size or other layers starts anew, with a log line.

    Position embeddings of a square image of another size are interpolated, with a log line, as timm does it.
    Where it starts anew, its last layer is near zero, so that a trained body is not shaken by the first gradients.

    Args:
        other_classes: a classifier of the model's own size starts anew too: it says something else.

    Raises:
        UserError: keys are missing, surplus or misshapen; each kind is named.
    """
    own, state = model.state_dict(), _with_resized_positions(model, state, source)
    replaced = _other_head(model, own, state, source, other_classes)
    kept = {key: value for key, value in state.items() if key not in replaced}
    counters = [key for key in own if _is_counter(key)]
    if fault := misfit(own, kept, [*replaced, *counters]):
        raise UserError(f"finetune.weights: {source} does not fit {type(model).__name__}: {fault}")
    model.load_state_dict(kept, strict=False)


def misfit(own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor], fresh: Collection[str] = ()) -> str:
    """Lists how a state dict does not fit a model's, a line for each kind of fault; empty if it fits.

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
    lines = [f"\n  {len(keys)} {kind}: {listed(keys)}" for kind, keys in faults.items() if keys]
    return f"{len(shared) - len(misshapen)} of its {len(own)} tensors fit" + "".join(lines) if lines else ""


def _with_resized_positions(
    model: nn.Module, state: Mapping[str, torch.Tensor], source: str
) -> Mapping[str, torch.Tensor]:
    """Returns ``state`` with timm's position embeddings, (1, tokens, channels), resized for the model's patches.

    Those of another image that was not square stay as they are: how many rows they had is not known.
    """
    ours, theirs = getattr(model, POSITIONS, None), state.get(POSITIONS)
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if not isinstance(ours, torch.Tensor) or theirs is None or grid is None or ours.shape == theirs.shape:
        return state
    height, width = grid
    prefix = ours.shape[1] - height * width if ours.ndim == 3 else -1
    if prefix < 0 or theirs.ndim != 3 or theirs.shape[1] <= prefix or theirs.shape[2] != ours.shape[2]:
        return state
    side = math.isqrt(theirs.shape[1] - prefix)
    if side**2 + prefix != theirs.shape[1]:
        return state
    log.info("%s has positions of %d x %d patches, interpolated to %d x %d", source, side, side, height, width)
    return {**state, POSITIONS: resample_abs_pos_embed(theirs, [height, width], [side, side], prefix)}


def _other_head(
    model: nn.Module,
    own: Mapping[str, torch.Tensor],
    state: Mapping[str, torch.Tensor],
    source: str,
    other_classes: bool,
) -> set[str]:
    """Returns the keys of a classifier that ``state`` has for other classes or with other layers; readies the model's.

    A classifier that ``state`` lacks altogether, and a single layer of other features, are faults and not named here.
    """
    paths = classifier_paths(model)
    below = tuple(f"{path}." for path in paths)
    ours, theirs = (
        {key: value.shape for key, value in tensors.items() if key.startswith(below) and not _is_counter(key)}
        for tensors in (own, state)
    )
    single = all(key.rpartition(".")[0] in paths for key in ours)
    if not theirs or (ours == theirs and not other_classes):
        return set()
    if ours == theirs:
        replaced = {key for key in own if key.startswith(below)}
    elif single and ours.keys() == theirs.keys():
        replaced = {key for key in ours if theirs[key] != ours[key] and theirs[key][1:] == ours[key][1:]}
        if not replaced:
            return replaced
        key = min(replaced)
        log.info("%s has %d classes, the model %d: its classifier starts anew", source, theirs[key][0], ours[key][0])
    else:
        replaced = {key for key in (*own, *state) if key.startswith(below)}
        log.info("%s has another head than the model, whose own starts anew", source)
    for path in paths:
        layers = [module for module in model.get_submodule(path).modules() if list(module.parameters(recurse=False))]
        start_small(layers[-1])
    return replaced


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


@torch.no_grad()
def start_small(layer: nn.Module) -> None:
    """Draws small weights for a new classifier, whose first gradients would shake a trained body."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter) if parameter.ndim == 1 else nn.init.trunc_normal_(parameter, std=0.01)


def listed(keys: list[str]) -> str:
    """Returns the first of ``keys``, and how many more there are."""
    rest = len(keys) - SHOWN
    return ", ".join(keys[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
