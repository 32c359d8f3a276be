"""Reading 300 experiments, beside TensorBoard's own reader over the same runs and pandas over the same table."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engine.board.card import card_of, write_card
from engine.board.events import Board
from engine.files import write_json
from engine.run_folder.experiments import read_runs
from engine.run_folder.metrics import read_metrics
from engine.run_folder.paths import RunDir
from tools.bench.timing import Table, interleaved, timed
from tools.compare.page import page
from tools.compare.table import as_csv, terminal

FULL, QUICK = (300, 1000), (3, 20)
"""Experiments, and training records of each."""
CONFIG = """\
experiment: {{name: run {number}, seed: {seed}}}
model: {{name: swin_tiny, drop_path: 0.{drop}}}
data: {{source: folder, root: /images, image_size: 224}}
optimizer: {{name: adamw, lr: {lr}, weight_decay: 0.05, betas: [0.9, 0.999]}}
training: {{epochs: 100, global_batch_size: 1024, precision: bf16}}
"""


def run(quick: bool = False) -> Table:
    """Runs the benchmark; ``quick``: a few small experiments, one round.

    All columns end with the last value of each metric of each run. pandas, where it is installed, is given a CSV file
    of all records, which somebody has to have made.
    """
    count, records = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for number in range(1, count + 1):
            write_run(root, number, records)
        rows: dict[str, dict[str, Callable[[], object]]] = {
            "metrics of all runs": {
                "EventAccumulator": partial(read_events, root),
                "ours": partial(read_runs, [root]),
            },
            "and the table": {"ours": lambda: terminal(read_runs([root]), None)},
            "and CSV of everything": {"ours": lambda: as_csv(read_runs([root]))},
            "and the page": {"ours": lambda: page(read_runs([root]), [])},
        }
        if find_spec("pandas") is not None:
            file = write_records(root)
            rows["metrics of all runs"]["pandas, one CSV"] = partial(read_frame, file)
        work = {(row, column): timed(job) for row, cells in rows.items() for column, job in cells.items()}
        title = f"{count} experiments of {records} training records"
        table = Table("compare", title, "milliseconds", interleaved(work, 1 if quick else 2))
    table.compare_columns("EventAccumulator", "ours", shown="ours")
    return table


def write_run(root: Path, number: int, records: int) -> None:
    """Writes the files of a finished run, its event files too."""
    folder = RunDir(root / f"experiment_{number:04d}")
    folder.path.mkdir()
    config = CONFIG.format(number=number, seed=number % 3, drop=number % 5, lr=1e-3 / (1 + number % 7))
    folder.config.write_text(config, encoding="utf-8")
    start = {"task": "classification", "metric": "top1", "direction": "max", "started": 1e9, "ended": 1e9 + records}
    write_json(folder.environment, {**start, "restarts": []})
    best = {"step": records, "epoch": 100.0, "top1": 0.8}
    write_json(folder.status, {"state": "finished", "step": records, "epoch": 100.0, "best": best, "updated": 1e9})
    place = folder.path / f"run {number}"
    write_card(place, card_of(start, config, {"number": number}, "top1"))
    board, lines = Board(place), []
    for step in range(1, records + 1):
        values = {"loss": 5.0 / step, "lr": 1e-3, "grad_norm": 1.0, "images_per_second": 1000.0, "memory_gb": 9.0}
        board.scalars("train", values, step)
        lines.append({"step": step, "epoch": step / 10, "split": "train", "time": 1e9 + step, **values})
        if step % 10 == 0:
            found = {"loss": 4.0 / step, "top1": 0.8 * step / records, "top5": 0.9 * step / records}
            board.scalars("val", found, step)
            lines.append({"step": step, "epoch": step / 10, "split": "val", "time": 1e9 + step, **found})
    board.close()
    folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def read_events(root: Path) -> dict[str, dict[str, float]]:
    """Reads the last value of each scalar with TensorBoard's reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    found = {}
    for folder in sorted(root.glob("experiment_*")):
        events = EventAccumulator(str(RunDir(folder).tensorboard), {"scalars": 0}).Reload()
        found[folder.name] = {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}
    return found


def write_records(root: Path) -> Path:
    """Writes the records of all runs into one CSV file."""
    from engine.text import csv_bytes

    names = ("step", "epoch", "split", "time", "loss", "lr", "grad_norm", "images_per_second", "memory_gb", "top1")
    folders = sorted(root.glob("experiment_*"))
    records = [(folder.name, record) for folder in folders for record in read_metrics(RunDir(folder).metrics)]
    file = root / "records.csv"
    rows = ([name, *(record.get(key, "") for key in names)] for name, record in records)
    file.write_bytes(csv_bytes(["experiment", *names], rows))
    return file


def read_frame(file: Path) -> Any:
    """Reads the last value of each metric with pandas."""
    import pandas

    return pandas.read_csv(file).groupby(["experiment", "split"]).last()
