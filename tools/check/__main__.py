"""``python -m tools.check --task TASK --config FILE [key.path=value ...]``: what would stop a run, before it starts."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.commands.arguments import command_parser
from engine.commands.entry import exit_code
from engine.config.load import emptied, load_config
from engine.config.run import DistributedConfig, RunConfig
from engine.distributed.slurm import job_end
from engine.errors import EXIT_USER_ERROR, UserError
from engine.files import check_writable, write_json
from engine.task.preflight import Checked
from engine.task.quick_check import check_settings
from engine.task.spec import TaskSpec, find_spec, known_tasks
from tools.check.apart import rehearse_apart
from tools.check.find_batch import Largest
from tools.check.machine import asked_bytes, check_devices, on_login_node
from tools.check.measure import Request
from tools.check.report import Report, told_of_warnings
from tools.submit.resources import OPTIONS, Resources, flag
from tools.submit.resources import check as check_resources

TAKEN = ("nodes", "gpus_per_node", "tasks_per_node", "mem", "time")
"""What a job may be asked for, as far as it matters here."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks a run and prints what it finds. Returns 0, or 2 if training would refuse to start, or end."""
    options = _parser().parse_intermixed_args(arguments)
    return exit_code(lambda: check(options))


def _parser() -> argparse.ArgumentParser:
    start = "python -m tools.check --task classification --config run.yaml"
    parser = command_parser(
        "python -m tools.check",
        "Looks at everything that a run needs before it is queued: settings, data, weights, device, disk, memory and "
        "time, the last two by steps that are really made. Trains nothing and keeps nothing. Exits with 2 if training "
        "would refuse to start, or run out of memory.",
        [
            f"{start} --gpus-per-node 4 --time 12:00:00",
            f"{start} --find-batch data.root=/scratch/shop",
            f"{start} --quick --json check.json",
        ],
    )
    tasks = f"what is to be trained: {', '.join(known_tasks())}, or a package of your own"
    parser.add_argument("--task", required=True, metavar="TASK", help=tasks)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the run's configuration")
    parser.add_argument("--quick", action="store_true", help="only what needs no model: settings and data")
    parser.add_argument("--find-batch", action="store_true", help="also find the largest micro-batch that fits")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all of it there")
    parser.add_argument(
        "--login-node", action=argparse.BooleanOptionalAction, default=None,
        help="the run will be on another machine: build all, but make no step, and warn of what this one lacks "
        "(default: where there is an sbatch, outside of jobs)",
    )  # fmt: skip
    for name in TAKEN:
        parser.add_argument(flag(name), **OPTIONS[name])
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="settings that win over the file's")
    return parser


def check(options: argparse.Namespace) -> int:
    """Checks a run; a mistake in keys, types or what does not go together is raised as a UserError."""
    spec = find_spec(options.task)
    if options.json is not None:
        if not options.json.parent.is_dir():
            raise UserError(f"--json {options.json}: there is no folder {options.json.parent}")
        check_writable(options.json.parent, "--json")
    given = {name: value for name in TAKEN if (value := getattr(options, name)) is not None}
    resources = check_resources(Resources(**{"gpus_per_node": 0, **given}))
    asked_bytes(resources)
    if options.quick and options.find_batch:
        raise UserError("--find-batch: makes steps, and --quick makes none; leave one of them away")
    try:
        config = load_config(spec.schema(), options.config, options.overrides)
    except UserError as error:
        write_report(options.json, Report(errors=str(error).splitlines()))
        raise
    print(f"configuration: {options.config}: keys and types are right")
    for line in emptied(options.overrides, spec.schema()):
        print(line)
    away = on_login_node() if options.login_node is None else options.login_node

    report = Report()
    with told_of_warnings(report.warn):  # what a look at the data tells
        report.tell("settings", Checked(errors=check_settings(spec, config)))
        report.tell("device", check_devices(config, away))
        seen = [*look(spec, config)]
        for checked in seen:
            report.tell("data", checked)
            tell_counts(report, checked)
        if options.quick:
            report.leave_out(["images beyond their headers", "weights", "disk", "memory", "time"], "--quick")
        elif report.errors:
            report.leave_out(
                ["images beyond their headers", "weights", "disk", "memory", "time"], "mend the errors first"
            )
        else:
            for checked in seen:
                look_at_pictures(report, checked, getattr(getattr(config, "data", None), "max_unreadable", 0))
    if not options.quick and not report.errors:
        rehearse(report, options, config, resources, away)
    print(f"verdict: {report.verdict}")
    write_report(options.json, report)
    return EXIT_USER_ERROR if report.errors else 0


def write_report(file: Path | None, report: Report) -> None:
    """Writes all that was found into the file of ``--json``, if there is one."""
    try:
        if file is not None:
            write_json(file, report.as_json())
    except OSError as error:
        raise UserError(f"--json {file}: cannot be written: {error.strerror}") from None


def look(spec: TaskSpec, config: RunConfig) -> Iterator[Checked]:
    """Yields what the task finds in settings and data. What is not there at all is an error among the others."""
    try:
        yield from spec.preflight(config)
    except UserError as error:
        yield Checked(errors=str(error).splitlines())


def tell_counts(report: Report, checked: Checked) -> None:
    """Tells how many there are of each class in each split."""
    from tools.check.pictures import by_class

    report.tell("data", Checked([by_class(split, counts) for split, counts in checked.counts.items()]))
    if checked.counts:
        report.figures["data"] = {split: dict(counts) for split, counts in checked.counts.items()}


def look_at_pictures(report: Report, checked: Checked, max_unreadable: int) -> None:
    """Decodes images in files, and looks for the same ones in several splits."""
    from engine.images.near_duplicates import PicturesInFiles
    from tools.check.pictures import look_closely

    in_files = {split: images for split, images in checked.images.items() if isinstance(images, PicturesInFiles)}
    if in_files:
        report.tell("data", look_closely(in_files, max_unreadable))


def rehearse(report: Report, options: argparse.Namespace, config: RunConfig, resources: Resources, away: bool) -> None:
    """Builds the run in another process and makes some steps, and tells what memory and time it takes."""
    from tools.check.judge import (
        judge_batch,
        judge_disk,
        judge_memory,
        judge_model,
        judge_speed,
        judge_time,
        memory_limit,
        run_seconds,
    )

    devices = resources.nodes * resources.tasks
    request = Request(options.task, "", resources.nodes, resources.tasks, steps=not away)
    found = rehearse_apart(_on_this(config) if away else config, request)
    report.tell("rehearsal", Checked(warnings=found["warnings"], errors=found["errors"]))
    report.figures |= {name: value for name, value in found.items() if name not in ("errors", "warnings")}
    if "model" not in found and "out_of_memory" not in found:
        report.leave_out(["disk", "memory", "time"], "mend the errors first")
        return
    if "model" in found:
        report.tell("model", judge_model(found))
        report.tell("disk", judge_disk(found))
    if away:
        largest = ["largest micro-batch"] if options.find_batch else []
        report.leave_out(["memory", "time", *largest], "this is a login node; ask for a job, and run it there")
        return
    limit, micro, on_gpu = memory_limit(found, resources), _micro(found, config), "gpu_bytes" in found
    if "memory_bytes" in found or "out_of_memory" in found:
        report.tell("memory", judge_memory(found, limit, micro))
    if "images_per_second" in found:
        seconds = run_seconds(found, devices)
        report.figures["seconds"] = seconds
        report.tell("speed", judge_speed(found, config))
        report.tell("time", judge_time(found, seconds, _walltime(resources), devices))
    if options.find_batch:
        asked = Request(options.task, "", find_batch=True, memory_bytes=None if on_gpu else limit)
        tried = rehearse_apart(config, asked)
        report.tell("rehearsal", Checked(errors=tried["errors"]))
        if "out_of_memory" in tried:
            report.leave_out(["largest micro-batch"], tried["out_of_memory"])
        if "largest" in tried:
            report.figures["largest"] = tried["largest"]
            part = -(-config.training.global_batch_size // devices)
            unit = "on the GPU" if on_gpu else "resident"
            report.tell("memory", judge_batch(Largest(**tried["largest"]), unit, part))


def _micro(found: Mapping[str, Any], config: RunConfig) -> int:
    return found["batch"]["micro"] if "batch" in found else config.training.global_batch_size


def _walltime(resources: Resources) -> float | None:
    """Returns the seconds that a job may take: as asked for, or what is left of the one that this runs in."""
    if resources.minutes is not None:
        return 60.0 * resources.minutes
    end = job_end()
    return None if end is None else end - time.time()


def _on_this(config: RunConfig) -> RunConfig:
    """Returns a configuration that can be built here: on the CPU."""
    training = config.training.model_copy(update={"precision": "fp32", "compile": False})
    return config.model_copy(update={"training": training, "distributed": DistributedConfig(device="cpu")})


if __name__ == "__main__":
    sys.exit(main())
