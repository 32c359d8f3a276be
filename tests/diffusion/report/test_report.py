from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from PIL import Image

from diffusion.metrics.measure import Copy, Found
from diffusion.report.loss_by_time import loss_by_time_figure
from diffusion.report.report import write_report
from engine.datasets.labelled import ArrayImages


def test_figures_are_written_with_what_they_are_of(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    about = {"images": 50, "reference": "val", "resize": "8 x 8", "inception": {"network": "n", "resize": "299"}}
    found = Found({"frechet_distance": 1.25, "recall": math.nan}, about, [Copy(1, pixels, 2, 0.5)])
    losses = {"loss": np.array([1.0, math.nan, 3.0])}
    folder = tmp_path / "val"
    train = ArrayImages(["a"], np.zeros(3, np.int64), np.zeros((3, 8, 8, 3), np.uint8))
    write_report(folder, "A run", found, pixels, train, losses)
    assert json.loads((folder / "metrics.json").read_text()) == {
        "frechet_distance": 1.25,
        "recall": None,
        "about": about,
    }
    text = (folder / "report.md").read_text()
    assert "| frechet_distance | 1.2500 | less |" in text and "| recall | nan | more |" in text
    assert "| inception | n, 299 |" in text
    for name in ("samples", "nearest_train", "loss_by_time"):
        assert f"]({name}.png)" in text and Image.open(folder / f"{name}.png").size[0] > 0
    write_report(tmp_path / "bare", "A run", Found({}, {}), pixels)
    assert sorted(path.name for path in (tmp_path / "bare").iterdir()) == ["metrics.json", "report.md", "samples.png"]


def test_losses_are_drawn_over_time_on_a_scale_that_shows_small_ones() -> None:
    (axes,) = loss_by_time_figure({"loss": np.array([1e-3, 1.0]), "image error": np.array([2.0, math.nan])}).axes
    assert axes.get_yscale() == "log" and axes.get_xlim() == (0, 1)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["loss", "image error"]
    (axes,) = loss_by_time_figure({"loss": np.array([0.0, 1.0])}).axes
    assert axes.get_yscale() == "linear"
