"""Names of the metrics, and whether more or less of each is better; without what computes them."""

from __future__ import annotations

from engine.task.metrics import Direction, Metrics

AVERAGES = ("macro", "micro", "weighted")
_AVERAGED = tuple(f"{kind}_{average}" for average in AVERAGES for kind in ("precision", "recall", "f1"))
METRICS: dict[str, Direction] = {"loss": "min", **dict.fromkeys(("top1", "top5", *_AVERAGED), "max")}
"""With one label an image."""
DECISION_METRICS: dict[str, Direction] = {
    "hamming_loss": "min", **dict.fromkeys(("subset_accuracy", *_AVERAGED), "max")
}  # fmt: skip
"""With several labels, what depends on thresholds."""
MULTILABEL_METRICS: dict[str, Direction] = {"loss": "min", "mAP": "max", **DECISION_METRICS}
"""With several labels."""
TUNED_METRICS: dict[str, Direction] = {f"{name}_tuned": way for name, way in DECISION_METRICS.items()}
"""What there is besides at tuned thresholds."""


def measured(multi_label: bool, thresholds: float | str) -> Metrics:
    """Returns what is measured; ``thresholds`` is `evaluation.thresholds`."""
    if not multi_label:
        return Metrics(METRICS, "top1")
    tuned = TUNED_METRICS if thresholds == "tuned" else {}
    return Metrics({**MULTILABEL_METRICS, **tuned}, "mAP")
