"""Names of COCO's figures; without what computes them."""

from __future__ import annotations

from engine.task.metrics import Metrics

METRICS = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip
"""COCO's twelve figures in its own order."""
MEASURED = Metrics(dict.fromkeys(METRICS, "max"), "AP")


def metrics_of(config: object) -> Metrics:
    """Returns what any run measures."""
    return MEASURED
