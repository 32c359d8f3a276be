"""The notebooks as they lie there: sources in percent format, and what was committed beside them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.environment import ROOT

FOLDER = ROOT / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


def cells_of(source: str) -> list[tuple[str, str]]:
    """Kind (``code`` or ``markdown``) and text of each cell of a source in percent format."""
    _, *parts = re.split(r"^# %%(.*)\n", source, flags=re.MULTILINE)
    found = []
    for head, text in zip(parts[::2], parts[1::2], strict=True):
        if head.strip() == "[markdown]":
            found.append(("markdown", re.sub(r"^# ?", "", text, flags=re.MULTILINE).strip()))
        else:
            assert not head.strip(), f"what is a cell {head!r}?"
            found.append(("code", text.strip()))
    return found


def source_of(name: str) -> str:
    """The source of a notebook."""
    return (FOLDER / f"{name}.py").read_text(encoding="utf-8")


def committed(path: Path) -> dict[str, Any]:
    """A notebook with its outputs."""
    return json.loads(path.read_text(encoding="utf-8"))


def joined(text: str | list[str]) -> str:
    """A text of a notebook's file, which may be a list of lines."""
    return text if isinstance(text, str) else "".join(text)
