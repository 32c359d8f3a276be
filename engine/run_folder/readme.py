"""README.md of an experiment's folder: the page one opens first, kept current by the run."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from engine.board.settings import common_settings
from engine.files import command, read_json, write_atomic
from engine.run_folder.metrics import read_metrics
from engine.run_folder.paths import RunDir
from engine.run_folder.status import read_status
from engine.text import markdown_table, plain

_UNINTERESTING = ("time", "step", "epoch", "split")


def write_readme(run_dir: RunDir, task: str) -> None:
    """Brings the README.md of ``run_dir`` up to date with the files beside it."""
    config = yaml.safe_load(run_dir.config.read_text(encoding="utf-8"))
    status, environment = read_status(run_dir.status) or {}, read_json(run_dir.environment) or {}
    records = read_metrics(run_dir.metrics) if run_dir.metrics.is_file() else []
    experiment, settings = config.get("experiment", {}), common_settings(config)
    title = f"{run_dir.name}: {experiment['name']}" if experiment.get("name") else run_dir.name
    parts = [
        f"# {plain(title)}",
        _sentence(task, status, config),
        markdown_table(("Setting", "Value"), ([f"`{key}`", f"`{value}`"] for key, value in settings.items())),
    ]
    if status.get("state") == "finished" and (skipped := status.get("skipped_in_row")):
        careful = f"**Careful:** {skipped_end(status.get('step', 0), skipped)}."
        parts.insert(2, f"{careful} `logs/rank_0.log` says what was not finite.")
    if experiment.get("tags"):
        parts.append("Tags: " + ", ".join(plain(tag) for tag in experiment["tags"]))
    if experiment.get("notes"):
        parts.append("\n".join(f"> {line}" for line in experiment["notes"].strip().splitlines()))
    parts += ["## Results", _results(status, records), "## When and where", _starts(environment), "## Go on from here"]
    last = [environment, *environment.get("restarts", [])][-1]
    parts += [_commands(run_dir, task, len(last.get("devices", [])), len(last.get("hosts", []))), _FILES]
    write_atomic(run_dir.readme, "\n\n".join(parts) + "\n")


_FILES = """\
`config.yaml` is the complete configuration and reproduces the run by itself; `metrics.jsonl` holds every record,
`logs/` one log a rank, `checkpoints/` the weights, `results/` what evaluation wrote, `environment.json` versions and
devices."""


def _sentence(task: str, status: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    epochs = config.get("training", {}).get("epochs")
    of = f" of {epochs}" if epochs else ""
    position = f"epoch {status.get('epoch', 0):.4g}{of}, step {status.get('step', 0)}"
    updated = f" ({_date(status['updated'])})" if "updated" in status else ""
    early = " (stopped early)" if status.get("stopped_early") else ""
    return f"Task {task}, state **{status.get('state', 'unknown')}**{early}, {position}{updated}."


def _results(status: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> str:
    """Tabulates the best evaluation, the last record of each split, and evaluations from outside the run, a column
    each."""
    columns = {_column(record): record for record in records}
    if not columns:
        return "Nothing measured yet."
    if status.get("best"):
        best_step = status["best"].get("step")
        same = [r for r in records if r["step"] == best_step and r["split"] == "val" and "source" not in r]
        columns = {"best": same[-1] if same else status["best"], **columns}
    names = dict.fromkeys(
        name
        for record in columns.values()
        for name, value in record.items()
        if name not in _UNINTERESTING and isinstance(value, (int, float))
    )
    rows = [(name, *(_number(record.get(name)) for record in columns.values())) for name in names]
    heading = ("", *(f"{name}, epoch {record.get('epoch', 0):.4g}" for name, record in columns.items()))
    return markdown_table(heading, rows)


def _column(record: Mapping[str, Any]) -> str:
    if "source" in record:
        made_from = " with ".join(record[key] for key in ("checkpoint", "changes") if key in record)
        return f"{record['source']} {record['split']} ({made_from})"
    return f"last {record['split']}"


def _starts(environment: Mapping[str, Any]) -> str:
    starts = [environment, *environment.get("restarts", [])] if environment else []
    rows = []
    for start in starts:
        git, devices = start.get("git") or {}, start.get("devices", [])
        names = [device.get("device_name", device.get("device", "")) for device in devices]
        counted = [f"{names.count(name)} x {name}" for name in dict.fromkeys(names)]
        commit = git.get("commit", "")[:10] + (" with changes" if git.get("changed_files") else "")
        job = start.get("slurm", {}).get("job_id", "")
        changed = "; ".join(start.get("changed_settings", []))
        hosts = ", ".join(start.get("hosts", []))
        rows.append((_date(start.get("started", 0)), hosts, ", ".join(counted), job, commit, changed))
    table = markdown_table(("Started", "Hosts", "Devices", "Slurm job", "Commit", "Changed settings"), rows)
    typed, place = environment.get("command", ""), environment.get("directory", ".")
    return f"{table}\n\n```\ncd {shlex.quote(place)}\n{typed}\n```" if typed else table


def _commands(run_dir: RunDir, task: str, devices: int, hosts: int) -> str:
    folder = str(run_dir.path)  # whole, as nobody knows where this is read
    lines = (
        resume_command(task, folder, devices, hosts),
        command("python", "-m", f"{task}.evaluate", "--experiment", folder),
        command("tensorboard", "--logdir", folder),
    )
    return "\n".join(["```", *lines, "```"])


def resume_command(task: str, folder: str | Path, devices: int, hosts: int) -> str:
    """Returns the command that goes on with a run on as many devices as before."""
    one_host = ["torchrun", f"--nproc-per-node={devices}"] if devices > 1 else ["python"]
    python = ["srun", "python"] if hosts > 1 else one_host
    return command(*python, "-m", f"{task}.train", "--resume", folder)


def _number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, (int, float)) else ""


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def skipped_end(step: int, skipped_in_row: int) -> str:
    """Returns what becomes of a run at ``step`` whose last ``skipped_in_row`` steps were skipped, for its user."""
    which = "last step was" if skipped_in_row == 1 else f"last {skipped_in_row} steps were"
    return f"the {which} skipped, not being finite: the weights are those of step {step - skipped_in_row}"
