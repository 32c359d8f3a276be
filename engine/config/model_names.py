"""Names of timm's models in a configuration: which there are, and what to say about one that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Collection

_INSTEAD = "give a file of weights or an experiment's folder, or null"


def check_timm(name: str, own: Collection[str]) -> None:
    """Checks the NAME of ``timm/NAME``.

    ``own`` are the models that go without ``timm/``, see :func:`unknown_model`.

    Raises:
        ValueError: timm has no such model.
    """
    import timm

    tag_known = "." not in name or name in timm.list_pretrained()
    if not timm.is_model(name) or not tag_known:
        raise ValueError(unknown_model(f"timm/{name}", own))


def check_published(key: str, model: str, timm_name: str | None, ask_timm: bool) -> None:
    """Checks that there is what ``finetune.weights: timm`` asks for.

    Args:
        key: The dotted key that names the model.
        model: What the configuration calls the model.
        timm_name: What timm calls it; None for our own.
        ask_timm: Import timm, and ask it whether it has weights for this one.

    Raises:
        ValueError: timm publishes no weights for the model.
    """
    if timm_name is None:
        raise ValueError(f"finetune.weights: timm is for timm's models, not for our {model} ({key}); {_INSTEAD}")
    if ask_timm:
        from timm.models import is_model_pretrained

        if not is_model_pretrained(timm_name):
            raise ValueError(f"finetune.weights: timm publishes none for '{timm_name}' ({key}); {_INSTEAD}")


def unknown_model(name: str, own: Collection[str]) -> str:
    """Returns what to say about a model that does not exist, with the nearest of ``own`` and of timm's that do."""
    bare = name.removeprefix("timm/")
    near = difflib.get_close_matches(name, own, 1, cutoff=0.8)  # plain misspellings of ours need no timm
    if not near:
        import timm

        known = timm.list_pretrained() if "." in bare else timm.list_models()
        near = difflib.get_close_matches(bare, [*own, *known], 3, cutoff=0.5)
    offered = [repr(match if match in own else f"timm/{match}") for match in near]
    hint = f"did you mean {' or '.join(offered)}?" if offered else f"there are {', '.join(own)} and timm/NAME"
    return f"no model '{name}'; {hint}"
