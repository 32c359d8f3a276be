"""Names of what is measured, and whether more or less of each is better; without what computes them."""

from __future__ import annotations

from engine.task.metrics import Direction, Metrics

JUDGE = "evaluation.judge"
"""What of a configuration names the classifier that judges samples, for messages."""
BINS = 4
"""Parts of the times that are trained on, of equal share in training: the first has least noise."""
BIN_NAMES = [f"loss_bin_{number}" for number in range(1, BINS + 1)]
LOSSES: dict[str, Direction | None] = {"loss": "min", **dict.fromkeys(BIN_NAMES, "min")}
"""What every evaluation measures, of held-out images."""
LIKENESS: dict[str, Direction | None] = {
    "frechet_distance": "min",
    "kernel_distance": "min",
    "precision": "max",
    "recall": "max",
    "channel_shift": "min",
}
"""What any samples are measured by, beside images of a reference split."""
CLASSES: dict[str, Direction | None] = {"class_accuracy": "max"}
"""What there is besides of images of classes where a classifier judges them."""
NOVELTY: dict[str, Direction | None] = {"nearest_train": None, "copies": "min"}
"""What there is besides where the images are looked for among the training images. Of the distance to these neither
more nor less is better."""
INCEPTION: dict[str, Direction | None] = {"fid": "min", "inception_score": "max"}
"""What there is besides where torch-fidelity and its weights are on this machine."""


def directions(*, judged: bool, novelty: bool = True, inception: bool = False) -> dict[str, Direction | None]:
    """Returns what :func:`diffusion.metrics.measure.measure` measures, each with its direction.

    Args:
        judged: Whether images have classes and a classifier judges them.
        novelty: Whether training images are given.
        inception: Whether :func:`diffusion.metrics.inception.find_inception` finds something.
    """
    parts = ((True, LIKENESS), (judged, CLASSES), (novelty, NOVELTY), (inception, INCEPTION))
    return {name: way for wanted, part in parts if wanted for name, way in part.items()}


def measured_in_training(*, sampled: bool, judged: bool) -> Metrics:
    """Returns what each evaluation of a run measures: losses, and of samples, if there are any, what they are like."""
    samples = directions(judged=judged, novelty=False) if sampled else {}
    judge = f"evaluation.samples, {JUDGE} and images whose class the network is told"
    wanted = dict.fromkeys(LIKENESS, "evaluation.samples") | dict.fromkeys(CLASSES, judge)
    return Metrics({**LOSSES, **samples}, "loss", wanted)
