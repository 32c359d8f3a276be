"""Images of experiments as parts of a page: made small, and not too many of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from engine.plots.figures import contained
from engine.run_folder.experiments import Run
from engine.run_folder.paths import RunDir

SIDE = 560
"""Pixels of an image's longer side on the page."""
MOST_RUNS = 24
"""Runs whose images the page has: the first ones of the table."""
MOST_BYTES = 12 * 2**20
"""Of all images together."""
LARGEST = 20 * 2**20
"""Bytes of a file that is opened at all."""
WANTED = {
    "confusion matrix": ("confusion_matrix.png",),
    "mistakes": ("worst_mistakes.png", "worst.png"),
    "precision and recall": ("precision_recall.png",),
}
"""What is shown of the results of test, else of val, by the names that tasks give to it."""


def pictures(runs: Sequence[Run]) -> dict[int, dict[str, str]]:
    """Returns images as ``data:`` URIs by what they show, of the first runs that have any, by their numbers."""
    found: dict[int, dict[str, str]] = {}
    size = 0
    for number, run in enumerate(runs):
        own = {}
        for name, file in _files(run).items():
            uri = as_uri(file)
            if uri is not None and size + len(uri) <= MOST_BYTES:
                own[name] = uri
                size += len(uri)
        if own:
            found[number] = own
        if len(found) == MOST_RUNS:
            break
    return found


def as_uri(file: Path) -> str | None:
    """Returns an image, made as small as it is shown, as a WebP within a URI; None if it cannot be read."""
    try:
        if not file.is_file() or file.stat().st_size > LARGEST:
            return None
        with Image.open(file) as image:
            image.load()
            shown = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError, SyntaxError):
        return None
    if max(shown.size) > SIDE:
        shown = contained(shown, SIDE)
    content = io.BytesIO()
    shown.save(content, "WEBP", quality=70, method=2)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()


def _files(run: Run) -> dict[str, Path]:
    folder = RunDir(run.path)
    results = [folder.results_for(split) for split in ("test", "val")]
    found = {"training images": folder.results / "train_samples.png"}
    for what, names in WANTED.items():
        places = (place / name for place in results for name in names)
        if (file := next((place for place in places if place.is_file()), None)) is not None:
            found[what] = file
    samples = sorted(folder.results.glob("grid_*.png"))
    if samples:
        found["samples"] = samples[-1]
    return found
