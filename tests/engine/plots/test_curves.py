"""Training curves of records as runs leave them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine.plots.curves import MOST_POINTS, draw_curves, grouped, line, write_curves

DIRECTIONS = {"loss": "min", "top1": "max"}


def record(split: str, step: int, **values: Any) -> dict[str, Any]:
    return {"step": step, "epoch": step / 10, "split": split, "time": 0.0, **values}


def test_metrics_whose_names_begin_alike_share_a_panel():
    assert grouped(["hamming_loss", "hamming_loss_tuned"]) == {"hamming_loss": ["hamming_loss", "hamming_loss_tuned"]}
    assert grouped(["loss", "f1_macro", "top1", "f1_micro", "grad_norm"]) == {
        "loss": ["loss"],
        "f1": ["f1_macro", "f1_micro"],
        "top1": ["top1"],
        "grad_norm": ["grad_norm"],
    }


def test_a_null_is_a_gap_and_a_long_line_is_thinned_to_means():
    records = [record("train", step, loss=None if step == 3 else float(step)) for step in range(1, 6)]
    epochs, values = line(records, "train", "loss")
    np.testing.assert_array_equal(values, [1, 2, np.nan, 4, 5])
    np.testing.assert_allclose(epochs, [0.1, 0.2, 0.3, 0.4, 0.5])
    many = [record("train", step, loss=None if step == 2 else float(step)) for step in range(1, 4002)]
    epochs, values = line(many, "train", "loss")
    assert len(values) <= MOST_POINTS and len(epochs) == len(values)
    np.testing.assert_allclose(values[[0, 1, -1]], [(1 + 3 + 4 + 5 + 6 + 7 + 8 + 9) / 8, 14, 3999])


def test_each_metric_is_drawn_for_each_split_and_evaluations_from_outside_are_not():
    records = [
        record("train", 1, loss=3.0, lr=0.1, images_per_second=9.0),
        record("val", 1, loss=2.0, top1=0.5, f1_macro=0.1, f1_micro=None, unheard_of=1.0),
        record("val", 2, loss=1.5, top1=0.25, unheard_of=2.0),
        record("val", 1, loss=1.0, top1=0.9, stranger=1.0, source="evaluate"),
    ]
    figure = draw_curves(records, DIRECTIONS)
    assert figure is not None
    panels = {axes.get_title(): [str(drawn.get_label()) for drawn in axes.get_lines()] for axes in figure.axes}
    assert panels == {
        "loss (best 1.5)": ["train", "val"],
        "f1": ["val macro", "val micro"],
        "top1 (best 0.5)": ["val"],
        "unheard_of": ["val"],
        "lr": ["train"],
    }


def test_no_two_metrics_of_a_panel_look_alike():
    names = [f"f1_{average}{tuned}" for average in ("macro", "micro", "weighted") for tuned in ("", "_tuned")]
    figure = draw_curves([record("val", step, **dict.fromkeys(names, 0.5)) for step in (1, 2)], DIRECTIONS)
    assert figure is not None
    lines = figure.axes[0].get_lines()
    assert len({(drawn.get_color(), drawn.get_linestyle()) for drawn in lines}) == len(lines) == 6


def test_nothing_measured_is_nothing_drawn(tmp_path: Path):
    assert not write_curves(tmp_path / "metrics.jsonl", tmp_path / "results" / "curves.png", DIRECTIONS)
    assert not (tmp_path / "results").exists()
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record("train", 1, loss=None)) + "\n")
    assert write_curves(tmp_path / "metrics.jsonl", tmp_path / "results" / "curves.png", DIRECTIONS)
    with Image.open(tmp_path / "results" / "curves.png") as image:
        assert image.format == "PNG" and min(image.size) > 200
