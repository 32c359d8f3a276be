"""Weights to start a detector from: those of a classifier for its backbone, or of another detector."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from engine.errors import UserError
from engine.model.pretrained import listed, misfit, read_weights
from swin import WeightsError, load_swin_weights
from swin.model import SwinBackbone

log = logging.getLogger(__name__)

COUNTER = "num_batches_tracked"
"""What a batch norm counts and does not use; a frozen one has no such counter."""

CLASSES = "head.classes."
"""What the names of a detector's class convolutions begin with."""


def load_start(model: nn.Module, path: Path, classes: Sequence[str] | None = None) -> None:
    """Copies weights into a detector (:class:`detection.model.ssd.SSD`), in place.

    A file with the names of a whole detector is loaded whole, but for the class convolutions where it has other
    classes. Anything else is taken for a classifier, ours or timm's (for Swin also Microsoft's or torchvision's), and
    goes into the backbone's body; what the body does not have, such as the classifier's last layer, is ignored. Each of
    these is logged in one line.

    Args:
        classes: Names of the model's classes. The class convolutions of a detector that was trained on others, or on
            the same in another order, are not taken over; None: they are wherever they fit.

    Raises:
        UserError: the file cannot be read, lacks parameters or has others. The model is untouched then.
    """
    state, theirs = read_weights(path)
    body = model.get_submodule("backbone.body")
    if any(name.startswith("backbone.body.") for name in state):
        other = classes is not None and theirs is not None and list(theirs) != list(classes)
        _load_detector(model, state, path.name, other)
    elif isinstance(body, SwinBackbone):
        try:
            load_swin_weights(body, state)
        except WeightsError as error:
            raise UserError(f"finetune.weights: {path}: {error}") from None
    else:
        load_body(body, state, path.name)


def load_body(body: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copies a timm classifier's weights into a timm model of feature maps, which may have renamed its stages.

    With ``features_only`` timm calls `stages.0` `stages_0`, or puts `model.` before every name.

    Raises:
        UserError: ``state`` lacks parameters of ``body``, or they have other shapes.
    """
    own = body.state_dict()
    theirs = {_spelled_alike(name): name for name in state}
    given = {name: state[theirs[_spelled_alike(name)]] for name in own if _spelled_alike(name) in theirs}
    _load(body, given, f"finetune.weights: {source} does not fit the backbone")
    used = {_spelled_alike(name) for name in own}
    if ignored := [name for name in state if _spelled_alike(name) not in used and not name.endswith(COUNTER)]:
        log.info("%s: ignored, not in the backbone: %s", source, listed(ignored))


def _load_detector(model: nn.Module, state: Mapping[str, Tensor], source: str, other_classes: bool) -> None:
    """``other_classes``: class convolutions that fit start anew too: they say something else."""
    own = model.state_dict()
    shapes = {name: (state[name].shape, own[name].shape) for name in own if name.startswith(CLASSES) and name in state}
    other = [
        name for name, (theirs, ours) in shapes.items() if theirs[1:] == ours[1:] and (theirs != ours or other_classes)
    ]
    unused = {*other, *(name for name in state if name not in own and name.endswith(COUNTER))}
    kept = {name: tensor for name, tensor in state.items() if name not in unused}
    _load(model, kept, f"finetune.weights: {source} does not fit this detector", other)
    if other:
        log.info("%s has other classes, or in another order: the class convolutions start anew", source)


def _load(model: nn.Module, state: Mapping[str, Tensor], misfits: str, fresh: Sequence[str] = ()) -> None:
    """Copies ``state``, which may lack ``fresh`` names and counters; ``misfits`` begins the message if it is no fit."""
    own = model.state_dict()
    if fault := misfit(own, state, [*fresh, *(name for name in own if name.endswith(COUNTER))]):
        raise UserError(f"{misfits}: {fault}")
    model.load_state_dict(state, strict=False)


def _spelled_alike(name: str) -> str:
    """Returns what a parameter's name and its name in a model of feature maps have in common."""
    return name.removeprefix("model.").replace("_", ".")
