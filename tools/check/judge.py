"""What the figures of a rehearsal mean: for the memory there is, and for the time that is asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from engine.checkpoints import disk_space
from engine.config.run import RunConfig
from engine.task.preflight import Checked
from tools.check.find_batch import Largest
from tools.check.machine import asked_bytes, node_bytes
from tools.submit.resources import SIGNAL_SECONDS, Resources

Found = Mapping[str, Any]
WAITING = 0.1
"""Part of a step that may wait for data before it is worth a word."""
FULL = 0.9
"""Part of the memory from which on a run is at its edge."""


def judge_model(found: Found) -> Checked:
    """Says what was built."""
    model, batch, steps = found["model"], found["batch"], found["steps"]
    flops = f", {model['flops'] / 1e9:.3g} GFLOPs an image" if model["flops"] else ""
    return Checked(
        [
            f"{model['parameters'] / 1e6:.3g} million parameters{flops}; weights, if any, fit",
            f"batch: {batch['micro']} x {batch['accumulation']} accumulated on a device, {batch['global']} in all; "
            f"{steps['per_epoch']} steps an epoch, {steps['total']} in all",
        ]
    )


def judge_disk(found: Found) -> Checked:
    """Says what checkpoints take."""
    disk = found["disk"]
    each, needed, free = (shown_bytes(disk[name]) for name in ("checkpoint_bytes", "needed_bytes", "free_bytes"))
    return Checked([f"checkpoints of up to {each}, {needed} at once; {free} free"])


def memory_limit(found: Found, resources: Resources) -> float | None:
    """Returns the bytes that a process may take: those of its GPU, else its part of what the node is asked for or has.

    None if nobody knows.
    """
    if "gpu_bytes" in found:
        return float(found["gpu_bytes"])
    each = (asked_bytes(resources) or node_bytes(os.environ)) / resources.tasks
    return each or None


def judge_memory(found: Found, limit: float | None, micro: int) -> Checked:
    """Compares the peak of a rehearsal with what there is."""
    cure = "lower training.micro_batch_size (--find-batch says how far), or turn on training.activation_checkpointing"
    if "out_of_memory" in found:
        return Checked(errors=[f"memory: a micro-batch of {micro} does not fit: {found['out_of_memory']}; {cure}"])
    taken = found["memory_bytes"]
    there = f" of {shown_bytes(limit)}" if limit else ""
    lines = [f"{shown_bytes(taken)}{there} at most, at a micro-batch of {micro}: steps, an evaluation and a checkpoint"]
    if limit and taken > limit:
        return Checked(errors=[f"memory: {shown_bytes(taken)} are needed, and there are {shown_bytes(limit)}; {cure}"])
    if limit and taken > FULL * limit:
        return Checked(lines, [f"memory: {taken / limit:.0%} of it is taken, so that little is left for anything else"])
    return Checked(lines)


def judge_speed(found: Found, config: RunConfig) -> Checked:
    """Says what holds a run up: its data, or its model."""
    rates, waiting = found["images_per_second"], found["data_wait_fraction"]
    together, loader, model = (f"{rates[name]:.4g}" for name in ("together", "loader", "model"))
    line = f"{together} images/s on a device; the loader alone {loader}, the model alone {model}"
    warnings = []
    if waiting > WAITING and rates["loader"] < rates["model"]:
        workers = getattr(getattr(config, "data", None), "workers", "auto")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        warnings = [
            f"speed: data-bound: {waiting:.0%} of the time waits for data; raise data.workers ({workers} now, on "
            f"{cores} cores), or make smaller files of the images"
        ]
    made, errors = found["made"], list[str]()
    if made["skipped"]:
        text = f"speed: {made['skipped']} of {made['steps']} steps had a loss or gradient that is not finite, and were "
        text += "skipped; lower optimizer.lr, or use another training.precision"
        (errors if made["skipped"] == made["steps"] else warnings).append(text)
    return Checked([line], warnings, errors)


def run_seconds(found: Found, devices: int) -> dict[str, float | None]:
    """Returns the estimated seconds of an epoch, without evaluation, of an evaluation, and of the whole run.

    An evaluation is divided among ``devices``. What exchanging gradients costs is not known here.
    """
    steps, each = found["steps"], found["step_seconds"]
    evaluation = found["evaluation_seconds"]
    evaluation = None if evaluation is None else evaluation / devices
    rest = steps["evaluations"] * ((evaluation or 0.0) + 2 * found["save_seconds"])
    total = found["start_seconds"] + found["first_step_seconds"] + max(0, steps["total"] - 1) * each + rest
    return {"epoch": steps["per_epoch"] * each, "evaluation": evaluation, "total": total}


def judge_time(found: Found, seconds: Mapping[str, float | None], limit: float | None, devices: int) -> Checked:
    """Compares how long a run takes with ``limit``, the seconds that a job may."""
    evaluation, total, steps = seconds["evaluation"], seconds["total"] or 0.0, found["steps"]
    told = "of unknown length" if evaluation is None else shown_seconds(evaluation)
    line = (
        f"{shown_seconds(found['step_seconds'])} a step, {shown_seconds(seconds['epoch'] or 0.0)} an epoch, an "
        f"evaluation {told}; {shown_seconds(total)} in all ({steps['total']} steps, {steps['evaluations']} evaluations"
        + (f", {devices} devices, whose exchange of gradients is not measured)" if devices > 1 else ")")
    )
    if limit is None or total <= limit:
        return Checked([line if limit is None else f"{line}, of {shown_seconds(limit)} that are asked for"])
    useful = limit - SIGNAL_SECONDS - found["start_seconds"] - found["first_step_seconds"]
    if useful < found["step_seconds"]:
        return Checked([line], errors=[f"time: {shown_seconds(limit)} are not enough to start and save; ask for more"])
    jobs = math.ceil((total - found["start_seconds"]) / useful)
    text = (
        f"time: the run takes {shown_seconds(total)}, and a job may {shown_seconds(limit)}: it goes on in {jobs} jobs"
    )
    return Checked([line], [text])


def judge_batch(largest: Largest, unit: str, part: int) -> Checked:
    """Says which micro-batch fits. ``part``: the samples that a device has of each global batch."""
    if not largest.size:
        return Checked(errors=["memory: not even the smallest micro-batch fits"])
    how = "" if largest.tried else ", by the memory of smaller ones"
    beyond = f"; {largest.too_large} does not" if largest.too_large is not None else "; no larger one was tried"
    text = f"largest micro-batch that fits: {largest.size} ({shown_bytes(largest.bytes)} {unit}{how}){beyond}"
    cure = "set training.micro_batch_size" if largest.size < part else f"of a global batch a device has {part}"
    return Checked([f"{text}; {cure}"])


def shown_bytes(count: float) -> str:
    """Returns ``1.4 GB`` or ``340 MB``."""
    return disk_space.shown_bytes(round(count))


def shown_seconds(seconds: float) -> str:
    """Returns ``0.105 s``, ``4.9 s``, ``3 min 12 s`` or ``7 h 40 min``."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
