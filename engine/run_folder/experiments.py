"""Any number of experiments as rows of one table, whatever state their folders are in."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from engine.errors import UserError
from engine.run_folder.as_found import Record, number, read_object, read_records, read_settings
from engine.run_folder.failure import read_failure
from engine.run_folder.metrics import NO_METRIC, Line, lines_of
from engine.run_folder.paths import RunDir, experiment_number
from engine.run_folder.status import LOST_AFTER

LESS_IS_BETTER = ("loss", "ece", "error", "fid", "hamming", "distance", "shift", "copies")
"""Words in names of metrics whose least value is taken for the best, where a folder does not say it."""


@dataclass
class Run:
    """What one folder tells. What cannot be read is missing, and named among the problems."""

    path: Path
    state: str = "unknown"
    """That of status.json, ``lost`` where a running one has long not been updated; ``foreign``: no experiment."""
    problems: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    """The configuration by its dotted keys."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Everything else, by the names of its columns."""
    best: Record = field(default_factory=dict)
    last: Record = field(default_factory=dict)
    """Evaluations of val: step, epoch and metrics."""
    trained: Record = field(default_factory=dict)
    test: Record = field(default_factory=dict)
    """The last training record, and the last evaluation of test from outside."""
    metric: str = ""
    """What decides which evaluation is the best."""
    direction: str = "max"
    lines: dict[str, Line] = field(default_factory=dict)
    """Curves by ``split.metric``."""

    @property
    def name(self) -> str:
        """Returns the readable name, if it has one."""
        return str(self.settings.get("experiment.name") or "")

    def row(self) -> dict[str, Any]:
        """Returns all of it but the curves as one flat row: facts, metrics by ``best.top1``, and settings."""
        head = {"experiment": self.path.name, "name": self.name, "state": self.state}
        head |= {"problem": "; ".join(self.problems), **self.facts, "metric": self.metric}
        records = {"best": self.best, "last": self.last, "train": self.trained, "test": self.test}
        measured = {f"{kind}.{name}": value for kind, record in records.items() for name, value in record.items()}
        return {**head, **measured, **self.settings}


def read_experiments(*places: str | Path) -> list[dict[str, Any]]:
    """Reads experiments as rows: ``pandas.DataFrame(read_experiments("experiments"))``.

    Args:
        places: Folders of experiments, or such that hold them.

    Returns:
        A flat dict for each: its state, ``best.top1``, ``last.loss``, hours, settings by their dotted keys, and so on.
        What a folder does not tell is missing; what is wrong with it stands under ``problem``.

    Raises:
        UserError: a place is not there, or none of them holds an experiment.
    """
    return [run.row() for run in read_runs(list(map(Path, places)))]


def read_runs(places: Iterable[Path]) -> list[Run]:
    """Reads the experiments among and directly below ``places``, by number, and behind them what is none.

    Raises:
        UserError: a place is not there, or none of them holds an experiment.
    """
    places = [place.absolute() for place in places]
    if missing := [place for place in places if not place.exists() and not place.is_symlink()]:
        raise UserError(f"{missing[0]}: there is no such folder")
    found = dict.fromkeys(path for place in places for path in _inside(place))
    if not any(map(_is_experiment, found)):
        raise UserError(f"{places[0]}: no experiments there; name the folder that holds experiment_0001, ...")
    paths = sorted(found, key=lambda path: (path.parent, not _is_experiment(path), experiment_number(path) or 0, path))
    with ThreadPoolExecutor(4) as threads:  # for file systems over a network: each open waits there
        return list(threads.map(_read, paths))


def _inside(place: Path) -> list[Path]:
    if _is_experiment(place) or not place.is_dir():
        return [place]
    try:
        return [path for path in place.iterdir() if _is_experiment(path) or (_is_named(path) and path.is_dir())]
    except OSError as error:
        raise UserError(f"{place}: cannot be read: {error.strerror}") from None


def _is_named(path: Path) -> bool:
    return not path.name.startswith(".")


def _is_experiment(path: Path) -> bool:
    """By its name, or, where it was renamed, by its files."""
    run = RunDir(path)
    return experiment_number(path) is not None or (
        run.config.is_file() and (run.status.is_file() or run.metrics.is_file())
    )


def _read(path: Path) -> Run:
    run = Run(path)
    if not path.is_dir():
        run.problems.append("is no folder" if path.exists() else "leads nowhere")
    elif not _is_experiment(path):
        run.problems.append("is no experiment")
    if run.problems:
        run.state = "foreign"
        return run
    try:
        _fill(run, RunDir(path))
    except Exception as error:  # one folder that nobody has thought of is no reason to show none of the others
        run.problems.append(f"cannot be read: {type(error).__name__}: {error}")
    return run


def _fill(run: Run, folder: RunDir) -> None:
    tell = run.problems.append
    run.settings = read_settings(folder.config, tell)
    status = read_object(folder.status, tell)
    state, known = status.get("state"), len(run.problems)
    environment, records = read_object(folder.environment, tell), list(read_records(folder.metrics, tell))
    if state == "queued":  # what has not begun lacks nothing
        run.problems[known:] = [problem for problem in run.problems[known:] if not problem.startswith("no ")]
    if isinstance(state, str):
        updated = number(status.get("updated")) or 0.0
        run.state = "lost" if state == "running" and time.time() - updated > LOST_AFTER else state
    if state == "failed" and (failure := read_failure(folder.failed)) is not None:
        tell(failure.reason)
    starts = [start for start in [environment, *_list(environment.get("restarts"))] if isinstance(start, dict)]
    model, told = _dict(environment.get("model")), _dict(status.get("best"))
    times = [value for record in records if (value := number(record.get("time"))) is not None]
    spans = _spans(starts, times, number(status.get("updated")))
    train = [record for record in records if record["split"] == "train"]
    val = [record for record in records if record["split"] == "val" and "source" not in record]
    speeds, memory = ([v for r in train if (v := number(r.get(name))) is not None] for name in _COSTS)
    run.facts = {
        "task": environment.get("task"),
        "epoch": number(status.get("epoch")),
        "step": number(status.get("step")),
        "restarts": len(starts) - 1 if environment else None,
        "started": time.strftime("%Y-%m-%d %H:%M", time.localtime(spans[0][0])) if spans else None,
        "hours": sum(end - begin for begin, end in spans) / 3600 if spans else None,
        **{name: number(model.get(name)) for name in ("parameters", "trainable", "flops")},
        "images_per_second": median(speeds) if speeds else None,
        "memory_gb": max(memory) if memory else None,
    }
    names = [name for name in told if name not in ("step", "epoch")]
    run.metric = str(environment.get("metric") or next(iter(names), ""))
    fewer = any(word in run.metric.lower() for word in LESS_IS_BETTER)
    run.direction = str(environment.get("direction") or ("min" if fewer else "max"))
    run.last = _measured(val[-1]) if val else {}
    run.best = _best([*val, told], run)
    run.trained = _measured(train[-1]) if train else {}
    outside = [record for record in records if record["split"] == "test" and "source" in record]
    run.test = {**_measured(outside[-1]), "checkpoint": outside[-1].get("checkpoint")} if outside else {}
    run.lines = lines_of([*train, *val], spans)


_COSTS = ("images_per_second", "memory_gb")


def _best(val: list[Record], run: Run) -> Record:
    """Returns the first of the best evaluations; status.json knows of one that the records may have lost."""
    values = [(value, record) for record in val if (value := number(record.get(run.metric))) is not None]
    choose = min if run.direction == "min" else max
    return _measured(choose(values, key=lambda pair: pair[0])[1]) if values else {}


def _measured(record: Record) -> Record:
    """Returns step, epoch and the metrics of a record."""
    names = ("step", "epoch", *(name for name in record if name not in NO_METRIC))
    return {name: record[name] for name in names if number(record.get(name)) is not None}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _spans(starts: list[Record], times: list[float], updated: float | None) -> list[tuple[float, float]]:
    """Returns from when to when each start was at work: to its end, if it is told, else to its last sign of life."""
    begins = [begin for start in starts if (begin := number(start.get("started"))) is not None]
    ends = [number(start.get("ended")) for start in starts if number(start.get("started")) is not None]
    limits = [*begins[1:], float("inf")][: len(begins)]
    signs = [*times, updated or 0.0]
    return [
        (begin, end if end is not None else max([begin, *(sign for sign in signs if begin <= sign < limit)]))
        for begin, end, limit in zip(begins, ends, limits, strict=True)
    ]
