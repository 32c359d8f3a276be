"""Names of timm's models in a configuration: which there are, and what to say about one that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def check_timm(name: str, pretrained: bool, own: Collection[str], key: str = "name") -> None:
    """Checks the NAME of ``timm/NAME``, given under ``key``, and whether timm has weights for it if they are wanted.

    ``own`` are the models that go without ``timm/``, see :func:`unknown_model`.

    Raises:
        ValueError: timm has no such model, or no weights for it.
    """
    import timm
    from timm.models import is_model_pretrained

    tag_known = "." not in name or name in timm.list_pretrained()
    if not timm.is_model(name) or not tag_known:
        raise ValueError(f"{key}: {unknown_model(f'timm/{name}', own)}")
    if pretrained and not is_model_pretrained(name):
        raise ValueError(f"pretrained: timm publishes no weights for '{name}'")


def unknown_model(name: str, own: Collection[str]) -> str:
    """What to say about a model that does not exist, with the nearest of ``own`` and of timm's that do."""
    bare = name.removeprefix("timm/")
    near = difflib.get_close_matches(name, own, 1, cutoff=0.8)  # plain misspellings of ours need no timm
    if not near:
        import timm

        known = timm.list_pretrained() if "." in bare else timm.list_models()
        near = difflib.get_close_matches(bare, [*own, *known], 3, cutoff=0.5)
    offered = [repr(match if match in own else f"timm/{match}") for match in near]
    hint = f"did you mean {' or '.join(offered)}?" if offered else f"there are {', '.join(own)} and timm/NAME"
    return f"no model '{name}'; {hint}"
