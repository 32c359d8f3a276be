"""A model's parts in order, under names that read well: what can be frozen, and what counts as its head."""

from __future__ import annotations

from timm.models import group_parameters
from torch import nn

from engine.errors import UserError

HEAD = "head"
"""The last stage: the classifier, and what belongs to no part before it."""


def stages(model: nn.Module) -> dict[str, list[str]]:
    """Returns the state dict's keys of each stage, from the input to the classes: ``stem``, ``stage_1``, ..., ``head``.

    The stages are those of timm's protocol, ``model.group_matcher(coarse=True)``: the stages of a convolutional or a
    hierarchical model, the blocks of a plain transformer. Its last group, where it puts what no pattern matches, is the
    head, together with ``model.get_classifier()``.

    Raises:
        UserError: the model does not say what its stages are.
    """
    if not hasattr(model, "group_matcher"):
        raise UserError(f"finetune: {type(model).__name__} does not say what its stages are (it has no group_matcher)")
    number = group_parameters(model, model.group_matcher(coarse=True), reverse=True)  # type: ignore[operator]
    heads, last = tuple(f"{path}." for path in classifier_paths(model)), max(number.values())
    found: dict[str, list[str]] = {"stem": [], **{f"stage_{i}": [] for i in range(1, last)}, HEAD: []}
    names = list(found)
    place = names[0]
    for key in model.state_dict():
        if key in number:  # a buffer belongs to the parameter before it
            place = names[number[key]]
        found[HEAD if key.startswith(heads) else place].append(key)
    return found


def classifier_paths(model: nn.Module) -> list[str]:
    """Returns where the modules of ``model.get_classifier()`` are: one, or several in distilled models."""
    if not hasattr(model, "get_classifier"):
        return []
    classifier = model.get_classifier()  # type: ignore[operator]
    modules = classifier if isinstance(classifier, tuple) else (classifier,)
    return [path for path, module in model.named_modules() if any(module is part for part in modules)]
