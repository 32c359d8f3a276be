"""Names of what every evaluation measures, without torch."""

from __future__ import annotations

from engine.task.metrics import Metrics

BINS = 4
"""Parts of the times that are trained on, of equal share in training: the first has least noise."""
BIN_NAMES = [f"loss_bin_{number}" for number in range(1, BINS + 1)]
METRICS = Metrics({"loss": "min", **dict.fromkeys(BIN_NAMES, "min")}, "loss")
