"""Which classes a file was trained on that tools.export has written, or one of its kinds."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from safetensors import safe_open

KEY = "swin_hpc"
"""Under which an exported file has its description."""


def classes_of(path: Path) -> list[str] | None:
    """Returns the names of the classes that a readable .safetensors or .keras file says it is for; None: it does not.

    Weights of a denoiser without classes, and files that others have written, say nothing.
    """
    text = None
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(KEY)
    elif path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            if f"{KEY}.json" in archive.namelist():
                text = archive.read(f"{KEY}.json")
    return None if text is None else json.loads(text).get("classes")
