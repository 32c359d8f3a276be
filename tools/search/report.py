"""What a search shows: a table of its trials, the best one's configuration, plots of history and importance."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from engine.files import write_atomic
from engine.run_folder.paths import RunDir
from engine.run_folder.status import read_status
from tools.search.space import quiet, settings_of
from tools.search.trials import Trials, fact

BEST = "best.yaml"
HISTORY, IMPORTANCE = "history.png", "importance.png"
LEAST = 4
"""Complete trials without which importances say nothing."""


def table(trials: Trials, root: Path, metric: str) -> str:
    """Formats a line for each trial, how many there are of each state, and the best one."""
    known, best = trials.all(), trials.best()
    keys = list(dict.fromkeys(key for trial in known for key in trial.params))
    rows = [["trial", "state", metric, "evaluations", "experiment", *keys, ""]]
    for trial in known:
        seen = list(trial.intermediate_values.values())
        value = trial.value if trial.value is not None else seen[-1] if seen else None
        star = "*" if best is not None and trial.number == best.number else ""
        shown = "" if value is None else f"{value:.4f}{star}"
        params = [f"{v:.4g}" if isinstance(v := trial.params.get(key), float) else str(v) for key in keys]
        known_of = [fact(trial, "experiment", ""), *params, fact(trial, "why", "").partition("\n")[0]]
        rows.append([str(trial.number), _state(trial, root), shown, str(len(seen)), *known_of])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    states = [trial.state.name.lower() for trial in known]
    lines.append(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "no trials yet")
    if best is not None:
        lines.append(f"best: trial {best.number}, {metric} {best.value:.4f}: {' '.join(settings_of(best.params))}")
    return "\n".join(lines)


def _state(trial: FrozenTrial, root: Path) -> str:
    """Returns Optuna's word; of a trial that has not ended, how its experiment is doing."""
    if trial.state != TrialState.RUNNING:
        return trial.state.name.lower()
    name = fact(trial, "experiment")
    status = (read_status(RunDir(root / name).status) if name is not None else None) or {}
    return str(status.get("state", "waiting"))


def write_results(trials: Trials, folder: Path, root: Path, metric: str) -> list[Path]:
    """Writes the configuration of the best trial, and plots once there is something to see. Returns the files."""
    best, written = trials.best(), []
    if best is None:
        return []
    run = RunDir(root / fact(best, "experiment"))
    about = f"# Trial {best.number} of {folder.name}, {run.name}: {metric} {best.value:.6g}\n"
    with contextlib.suppress(FileNotFoundError):  # somebody has removed the experiment
        write_atomic(folder / BEST, about + run.config.read_text(encoding="utf-8"))
        written.append(folder / BEST)
    complete = [trial for trial in trials.all() if trial.state == TrialState.COMPLETE]
    written += _plots(trials, complete, folder, metric)
    return written


def _plots(trials: Trials, complete: Sequence[FrozenTrial], folder: Path, metric: str) -> list[Path]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from optuna.importance import FanovaImportanceEvaluator
    from optuna.visualization.matplotlib import plot_optimization_history, plot_param_importances

    plots: list[tuple[str, Callable[..., Any]]] = [(HISTORY, plot_optimization_history)]
    if len(complete) >= LEAST and len({trial.value for trial in complete}) > 1:
        plots.append((IMPORTANCE, partial(plot_param_importances, evaluator=FanovaImportanceEvaluator(seed=0))))
    for name, plot in plots:
        with quiet():
            plot(trials.study, target_name=metric)
        pyplot.savefig(folder / name, dpi=150, bbox_inches="tight")
        pyplot.close()
    return [folder / name for name, _ in plots]
