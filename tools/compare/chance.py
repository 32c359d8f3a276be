"""What chance would do: whether a difference between runs is more than other seeds, or other images, would make."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.run_folder.experiments import Run
from engine.run_folder.paths import RunDir
from tools.compare.rows import groups, in_order, is_more_better, labels

LEVEL = 0.95
FEWEST = 3
"""Seeds of a group of which a difference can be told; of two the spread is hardly known."""
MOST = 5
"""Statements of a kind: the best beside so many others."""
RESAMPLES = 20_000
SPLITS = ("test", "val")
"""The first of which two runs both have predictions is taken."""


@dataclass(frozen=True)
class Interval:
    """A difference of two means, and between which it lies."""

    difference: float
    low: float
    high: float

    @property
    def by_chance(self) -> bool:
        """Tells whether no difference at all is among what is likely."""
        return self.low <= 0 <= self.high


def statements(runs: Sequence[Run]) -> list[str]:
    """Says of groups of seeds, and of pairs of runs with predictions of the same images, what chance would do.

    The best is compared with up to :data:`MOST` others. Of several comparisons each is held to a stricter level, so
    that all together are wrong with the probability of one (Bonferroni).
    """
    return [*of_seeds(runs), *of_images(runs)]


def of_seeds(runs: Sequence[Run]) -> list[str]:
    """Compares the best group of seeds with others, by the best values of their finished runs.

    A seed that was run twice counts once: its second run is no other one.
    """
    lines = []
    finished = [run for run in runs if run.state == "finished"]
    for metric in dict.fromkeys(run.metric for run in finished if run.metric):
        known = [run for run in finished if run.metric == metric and isinstance(run.best.get(metric), int | float)]
        parts = [list({run.settings.get("experiment.seed"): run for run in part}.values()) for part in groups(known)]
        names = labels(parts)
        values = [np.array([run.best[metric] for run in part], float) for part in parts]
        sign = -1 if is_more_better(f"best.{metric}", known) else 1
        order = sorted(range(len(parts)), key=lambda i: sign * float(values[i].mean()))
        several = [i for i in order if len(values[i]) > 1]
        enough = [i for i in several if len(values[i]) >= FEWEST]
        pairs = [(enough[0], other) for other in enough[1 : MOST + 1]] if enough else []
        for first, other in pairs:
            found = difference_of_means(values[first], values[other], 1 - (1 - LEVEL) / len(pairs))
            verdict = "no more than chance would do" if found.by_chance else "more than chance would do"
            lines.append(
                f"{metric}: {names[first]} {_spread(values[first])} beside {names[other]} {_spread(values[other])}: "
                f"{found.difference:+.4f}, {LEVEL:.0%} interval {found.low:+.4f} to {found.high:+.4f}{_of(pairs)}: "
                f"{verdict}"
            )
        if not pairs:
            lines += [f"{metric}: {names[i]} {_spread(values[i])}, mean and standard deviation" for i in several[:MOST]]
        if len(several) > 1 and not pairs:
            lines.append(f"{metric}: fewer than {FEWEST} seeds say nothing about chance: run more of each")
        if len(parts) > 1 and not several:
            lines.append(
                f"{metric}: one run of each configuration says nothing about chance: another seed gives another value "
                "(run each with several values of experiment.seed)"
            )
    return lines


def difference_of_means(first: NDArray, second: NDArray, level: float = LEVEL) -> Interval:
    """Returns the difference of the means of two samples, each of at least two values, with its bootstrap interval.

    Resampled means of few values spread too little: deviations are scaled by sqrt(n / (n - 1)), and the percentiles are
    those of Student's t with Welch's degrees of freedom (expanded percentiles, Hesterberg 2015).
    """
    from scipy.stats import norm, t

    rng = np.random.default_rng(0)
    means = []
    for values in (first, second):
        drawn = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1)
        means.append(values.mean() + (drawn - values.mean()) * sqrt(len(values) / (len(values) - 1)))
    shares = [values.var(ddof=1) / len(values) for values in (first, second)]
    parts = sum(share**2 / (len(values) - 1) for share, values in zip(shares, (first, second), strict=True))
    freedom = sum(shares) ** 2 / parts if parts > 0 else len(first) + len(second) - 2
    tail = float(norm.cdf(t.ppf((1 - level) / 2, freedom)))
    low, high = np.quantile(means[0] - means[1], (tail, 1 - tail))
    return Interval(float(first.mean() - second.mean()), float(low), float(high))


def of_images(runs: Sequence[Run]) -> list[str]:
    """Compares the best run with others by which images each has right (McNemar's exact test)."""
    lines = []
    for metric in dict.fromkeys(run.metric for run in runs if run.metric):
        own = [run for run in runs if run.metric == metric]
        able: list[tuple[Run, dict[str, Path]]] = []
        for run in in_order(own, f"best.{metric}") if any(metric in run.best for run in own) else own:
            if files := _prediction_files(run):
                able.append((run, files))
            if len(able) > MOST:
                break
        pairs = [(able[0], other) for other in able[1:]]
        for (first, theirs), (other, its) in pairs:
            split = next((split for split in SPLITS if split in theirs and split in its), None)
            if split is not None:
                lines.append(_pair(first, other, split, theirs[split], its[split], len(pairs)))
    return [line for line in lines if line]


def mcnemar(only_first: int, only_second: int) -> float:
    """Returns the probability that images on which two models differ fall at least as unevenly by chance."""
    from scipy.stats import binomtest

    differ = only_first + only_second
    return float(binomtest(only_first, differ).pvalue) if differ else 1.0


def _pair(first: Run, other: Run, split: str, file: Path, others: Path, pairs: int) -> str:
    one, two = read_right(file), read_right(others)
    names = f"{first.path.name} beside {other.path.name}"
    if one is None or two is None:
        return ""
    if {name: true for name, (true, _) in one.items()} != {name: true for name, (true, _) in two.items()}:
        return f"{names}: their predictions of {split} are not of the same images: not compared"
    both = [(right, two[name][1]) for name, (_, right) in one.items()]
    only_first, only_second = (sum(a and not b for a, b in both), sum(b and not a for a, b in both))
    p = min(1.0, mcnemar(only_first, only_second) * pairs)
    verdict = "no more than chance would do" if p > 1 - LEVEL else "more than chance would do"
    share = (only_first - only_second) / len(both)
    return (
        f"{names}: of the same {len(both)} images of {split} {only_first} are right in the first alone, {only_second} "
        f"in the second alone ({share:+.4f}), p = {p:.2g}{_of([0] * pairs)}: {verdict}"
    )


def read_right(file: Path) -> dict[str, tuple[str, bool]] | None:
    """Reads from a predictions.csv, by image, what is true and whether that was said; None if it says neither."""
    try:
        with file.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
            rows = csv.reader(lines)
            head = next(rows, [])
            said = "class_1" if "class_1" in head else "predicted"
            image, true, guess = (head.index(name) for name in ("image", "true", said))
            found = {row[image]: (row[true], row[guess] == row[true]) for row in rows}
    except (OSError, ValueError, IndexError, csv.Error):
        return None
    return found or None


def _prediction_files(run: Run) -> dict[str, Path]:
    files = {split: RunDir(run.path).results_for(split) / "predictions.csv" for split in SPLITS}
    return {split: file for split, file in files.items() if file.is_file()}


def _spread(values: NDArray) -> str:
    return f"{values.mean():.4f} ± {values.std(ddof=1):.4f}"


def _of(pairs: Sequence[object]) -> str:
    return f" (one of {len(pairs)} comparisons)" if len(pairs) > 1 else ""
