"""Experiment folders as runs leave them, and broken ones, made without training anything."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engine.files import write_json
from engine.run_folder.paths import RunDir

CONFIG = """\
experiment:
  name: {name}
  root: {root}
  tags: []
  notes: ''
  seed: {seed}

model:
  name: swin_tiny
  drop_path: 0.1
  depths: [2, 2, 6, 2]

data:
  source: digits
  workers: auto

optimizer:
  name: adamw
  lr: {lr}
  betas: [0.9, 0.999]

training:
  epochs: {epochs}
  steps: null
  global_batch_size: 64
  ema: null

logging:
  every_steps: 50
"""
BEGAN = 1.7e9


def write_experiment(
    root: Path,
    number: int,
    *,
    name: str = "",
    seed: int = 0,
    lr: str = "1.0e-03",
    epochs: int = 4,
    steps_per_epoch: int = 10,
    every: int = 5,
    top1: float = 0.9,
    state: str = "finished",
    restarts: int = 0,
) -> RunDir:
    """A run whose val.top1 rises to ``top1`` at the epoch before the last and is a little less at the end."""
    folder = RunDir(root / f"experiment_{number:04d}")
    folder.path.mkdir(parents=True)
    folder.config.write_text(CONFIG.format(name=json.dumps(name), root=root, seed=seed, lr=lr, epochs=epochs))
    lines, began = [], BEGAN + 1000 * number
    for step in range(every, epochs * steps_per_epoch + 1, every):
        epoch = step / steps_per_epoch
        record: dict[str, Any] = {"step": step, "epoch": epoch, "split": "train", "time": began + step}
        costs = {"images_per_second": 100.0 + step % 3, "data_wait_fraction": 0.1, "memory_gb": 1.5 + step / 1e4}
        lines.append({**record, "loss": 2.0 / (1 + epoch), "grad_norm": 1.0, "lr": float(lr), **costs})
        if step % steps_per_epoch == 0:
            value = top1 * min(1.0, epoch / (epochs - 1)) - (0.01 if epoch == epochs else 0.0)
            values = {"loss": None if epoch == 1 else 1.0 / epoch, "top1": value, "f1_macro": value - 0.02}
            lines.append({**record, "split": "val", **values})
    folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    last = epochs * steps_per_epoch
    best = {"step": last - steps_per_epoch, "epoch": epochs - 1.0, "top1": top1}
    write_json(
        folder.status, {"state": state, "epoch": float(epochs), "step": last, "best": best, "updated": began + last}
    )
    start = {"task": "classification", "metric": "top1", "direction": "max", "started": began, "hosts": ["n0"]}
    start |= {"model": {"parameters": 28_288_354, "trainable": 28_288_354, "flops": 8_970_000_000}}
    again = [{**start, "started": began + last / 2 + 1 + i} for i in range(restarts)]
    write_json(folder.environment, {**start, "restarts": again})
    return folder


def write_predictions(folder: RunDir, right: np.ndarray, split: str = "val") -> None:
    """Predictions of N images of two classes, of which those are right that are True in ``right``, (N,)."""
    place = folder.results_for(split)
    place.mkdir(parents=True, exist_ok=True)
    with (place / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "true", "class_1", "probability_1", "loss"])
        for number, is_right in enumerate(right.tolist()):
            true = "ab"[number % 2]
            writer.writerow([f"{number}.png", true, true if is_right else "ba"[number % 2], 0.9, 0.1])


# -- what may have become of a folder ------------------------------------------------------------------------------


def _text(name: str, text: str | bytes) -> Callable[[RunDir], object]:
    return lambda folder: (folder.path / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def _gone(*names: str) -> Callable[[RunDir], object]:
    return lambda folder: [(folder.path / name).unlink() for name in names]


def _instead(name: str) -> Callable[[RunDir], object]:
    def do(folder: RunDir) -> None:
        (folder.path / name).unlink()
        (folder.path / name).mkdir()

    return do


def _emptied(folder: RunDir) -> None:
    for path in folder.path.iterdir():
        path.unlink()


def _running(age: float) -> Callable[[RunDir], object]:
    def do(folder: RunDir) -> None:
        status = json.loads(folder.status.read_text())
        write_json(folder.status, {**status, "state": "running", "updated": time.time() - age})

    return do


def _a_file(folder: RunDir) -> None:
    _emptied(folder)
    folder.path.rmdir()
    folder.path.write_text("not a folder")


def _dangling(folder: RunDir) -> None:
    _emptied(folder)
    folder.path.rmdir()
    folder.path.symlink_to(folder.path.with_name("nowhere"))


def _torn(folder: RunDir) -> None:
    folder.metrics.write_bytes(folder.metrics.read_bytes()[:-20])


def _bomb(folder: RunDir) -> None:
    layers = [f"k{i}: &k{i} {{" + ", ".join(f"x{j}: *k{i - 1}" for j in range(9)) + "}" for i in range(1, 12)]
    folder.config.write_text("\n".join(["k0: &k0 {a: 1}", *layers]))


BROKEN: dict[str, tuple[Callable[[RunDir], object], str, str]] = {
    "no configuration": (_gone("config.yaml"), "finished", "no config.yaml"),
    "no status": (_gone("status.json"), "unknown", "no status.json"),
    "no metrics": (_gone("metrics.jsonl"), "finished", "no metrics.jsonl"),
    "half deleted": (_gone("config.yaml", "metrics.jsonl", "environment.json"), "finished", "no environment.json"),
    "empty": (_emptied, "unknown", "no status.json"),
    "a file": (_a_file, "foreign", "is no folder"),
    "a link to nothing": (_dangling, "foreign", "leads nowhere"),
    "configuration that is no YAML": (_text("config.yaml", "a: [1\nb: }"), "finished", "is no YAML in line"),
    "configuration that is a list": (_text("config.yaml", "- 1\n- 2\n"), "finished", "is no configuration"),
    "configuration of billions of values": (_bomb, "finished", "is no configuration"),
    "configuration of other bytes": (_text("config.yaml", b"\xff\xfe\x00\x01: \x00"), "finished", "config.yaml"),
    "status cut short": (_text("status.json", '{"state": "fin'), "unknown", "status.json: is damaged"),
    "status of another kind": (_text("status.json", '["finished"]'), "unknown", "status.json: is damaged"),
    "status of odd values": (
        _text("status.json", '{"state": 7, "best": 3, "step": "x", "updated": null}'),
        "unknown",
        "",
    ),
    "environment cut short": (_text("environment.json", "{"), "finished", "environment.json: is damaged"),
    "damaged lines": (
        lambda folder: folder.metrics.write_text("{}\nx\n" + folder.metrics.read_text()),
        "finished",
        "2 of 14 lines are damaged",
    ),
    "a last line cut short": (_torn, "finished", ""),
    "a folder for a file": (_instead("metrics.jsonl"), "finished", "no metrics.jsonl"),
    "running": (_running(10), "running", ""),
    "lost": (_running(400), "lost", ""),
}
"""What was done to a folder, and the state and problem that it is shown with."""


def write_root(root: Path, count: int, *, broken: bool = True, **settings: Any) -> list[RunDir]:
    """``count`` experiments: three seeds of each configuration, and the last ones broken, each in its own way."""
    folders = []
    for number in range(1, count + 1):
        group, seed = divmod(number - 1, 3)
        lr = f"{1e-3 * (1 + group % 10):.1e}"
        name = f"group {group}" if number % 2 else ""
        value = 0.8 + group % 10 / 100 + seed / 1000
        folders.append(write_experiment(root, number, name=name, seed=seed, lr=lr, top1=value, **settings))
    for folder, (spoil, _, _) in zip(folders[-len(BROKEN) :], BROKEN.values(), strict=False) if broken else ():
        spoil(folder)
    (root / "notes").mkdir()
    (root / ".snapshots").mkdir()
    (root / "README.md").write_text("not listed")
    return folders
