"""What the evaluation of generated images leaves in results/<split>/: numbers with what they are of, and pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffusion.metrics.measure import Found
from diffusion.metrics.names import LOSSES, directions
from diffusion.report.grids import nearest_sheet
from diffusion.report.loss_by_time import loss_by_time_figure
from engine.datasets.labelled import LabelledImages
from engine.files import write_atomic
from engine.images.image_io import ImageArray, write_image
from engine.plots.figures import as_image
from engine.text import markdown_table

BETTER = {"min": "less", "max": "more", None: ""}


def write_report(
    folder: Path,
    title: str,
    found: Found,
    grid: ImageArray,
    train: LabelledImages | None = None,
    losses: Mapping[str, NDArray[np.float64]] | None = None,
) -> None:
    """Writes metrics.json, report.md and figures into `folder`, which it makes.

    metrics.json has under `about` what the figures are of: number of images, reference split, space, resize. What is
    not finite is null in it.

    Args:
        folder: Where to.
        title: Of report.md.
        found: What was measured.
        grid: A sheet of samples.
        train: The training images, among which the nearest ones were looked for.
        losses: For :func:`diffusion.report.loss_by_time.loss_by_time_figure`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = {name: value if math.isfinite(value) else None for name, value in found.metrics.items()}
    write_atomic(folder / "metrics.json", json.dumps({**values, "about": found.about}, indent=2) + "\n")
    write_image(folder / "samples.png", grid)
    ways = LOSSES | directions(judged=True, inception=True)
    rows = [(name, f"{value:.4f}", BETTER[ways.get(name)]) for name, value in found.metrics.items()]
    parts = [
        f"# {title}",
        markdown_table(("metric", "value", "better"), rows),
        "What the figures are of:",
        markdown_table(("", ""), [(name.replace("_", " "), _text(value)) for name, value in found.about.items()]),
        "## Samples",
        "![Samples](samples.png)",
    ]
    if train is not None and found.nearest:
        write_image(folder / "nearest_train.png", nearest_sheet(found.nearest, train.image))
        text = (
            "Each on the left of the training image that it is nearest to; the nearest first. Copies would show here."
        )
        parts += ["## Nearest training images", text, "![Nearest training images](nearest_train.png)"]
    if losses:
        write_image(folder / "loss_by_time.png", as_image(loss_by_time_figure(losses)))
        parts += ["## Loss by time", "![Loss by time](loss_by_time.png)"]
    write_atomic(folder / "report.md", "\n\n".join(parts).encode(errors="replace") + b"\n")


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(map(_text, value.values()))
    if isinstance(value, (list, tuple)):
        return " and ".join(map(_text, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
