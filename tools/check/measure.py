"""Rehearses the start of a run on one device: builds it as training does, makes some steps and an evaluation.

``python -m tools.check.measure REQUEST RESULT``: in a process of its own, whose memory is a run's, and which may be
killed for it.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.commands.entry import wait_politely
from engine.config.load import load_config
from engine.config.run import RunConfig
from engine.errors import UserError
from engine.files import write_json
from engine.process.descriptors import raise_descriptor_limit
from engine.process.signals import end_with_parent
from engine.task.spec import TaskSpec, find_spec
from tools.check.report import told_of_warnings

if TYPE_CHECKING:
    from engine.data.device_prefetch import DeviceBatches
    from engine.training.trainer import Trainer

STEP_SECONDS = 10.0
"""How long steps are made; at least :data:`LEAST_STEPS`, if the run has so many."""
LEAST_STEPS = 4
LOADER_SECONDS = 4.0
EVALUATION_SECONDS = 40.0
"""After which an evaluation is ended; how far it was tells how long all of it takes."""


@dataclass(frozen=True)
class Request:
    """What is to be rehearsed."""

    task: str
    config: str
    """File of the resolved configuration."""
    nodes: int = 1
    tasks: int = 1
    """Processes on each node."""
    steps: bool = True
    """Whether steps are made; else all is built, and that is all."""
    find_batch: bool = False
    memory_bytes: float | None = None
    """What a process may take, on a CPU."""
    begun: float | None = None
    """When the process was started, in seconds since 1970; None: now."""


def rehearse(request: Request) -> dict[str, Any]:
    """Returns what was found: ``errors``, ``warnings`` and, as far as it got, figures."""
    begun = time.time() if request.begun is None else request.begun
    spec, found = find_spec(request.task), dict[str, Any](errors=[])
    config = load_config(spec.schema(), Path(request.config))
    warnings: list[str] = []
    from engine.commands.build import told_of_memory

    with told_of_warnings(warnings.append):
        try:
            with told_of_memory(config):
                _rehearse(spec, config, request, found, begun)
        except UserError as error:
            found["errors"] += str(error).splitlines()
    return {**found, "warnings": warnings}


def _rehearse(spec: TaskSpec, config: RunConfig, request: Request, found: dict[str, Any], begun: float) -> None:
    import torch

    from engine.checkpoints.disk_space import check_free_space, free_bytes
    from engine.commands import folder_recorder  # noqa: F401  (its memory is a run's)
    from engine.commands.build import build_trainer
    from engine.distributed.connect import connect
    from engine.distributed.layout import Layout, own_cores
    from engine.distributed.ranks import Ranks
    from engine.model.cost import model_cost
    from engine.training.schedule import Intervals
    from engine.training.step_numbers import NonFiniteError

    root = config.experiment.root
    ranks = connect(config.distributed, Layout(), root)
    ranks = replace(ranks, layout=Layout(0, 1, 0, request.tasks))  # its part of the cores
    if ranks.device.type == "cpu" and request.tasks > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(own_cores(ranks.layout, os.environ))
    planned = Ranks(Layout(0, request.nodes * request.tasks, 0, request.tasks), ranks.device)
    trainer = build_trainer(spec, config, ranks, planned)
    trainer.learner.unfreeze(trainer.total_steps)  # what takes most
    layout, task = trainer.layout, trainer.task
    every = Intervals(
        config.evaluation, config.checkpoint, config.logging, layout.steps_per_epoch, trainer.total_steps
    ).evaluate_every
    found["model"] = model_cost(task.model, lambda: task.example())
    found["steps"] = {
        "total": trainer.total_steps,
        "per_epoch": layout.steps_per_epoch,
        "evaluations": -(-trainer.total_steps // every),
    }
    found["batch"] = {
        "micro": layout.slot_size,
        "accumulation": layout.accumulation,
        "global": layout.global_batch_size,
    }
    if ranks.device.type == "cuda":
        found["gpu_bytes"] = torch.cuda.get_device_properties(ranks.device).total_memory
    size = trainer.learner.checkpoint_bytes()
    found["disk"] = {"checkpoint_bytes": size, "needed_bytes": (config.checkpoint.keep + 2) * size}
    found["disk"]["free_bytes"] = free_bytes(root)
    try:
        check_free_space(root, size, config.checkpoint.keep)
    except UserError as error:
        found["errors"] += str(error).splitlines()
    found["start_seconds"] = time.time() - begun
    try:
        if request.find_batch:
            from tools.check.find_batch import find_batch

            found["largest"] = asdict(find_batch(trainer, request.memory_bytes))
        elif request.steps:
            _measure(trainer, config.evaluation.batch_size, found)
    except NonFiniteError as error:
        found["errors"].append(str(error))
    except torch.OutOfMemoryError as error:
        found["out_of_memory"] = str(error).splitlines()[0]


def _measure(trainer: Trainer, eval_batch: int, found: dict[str, Any]) -> None:
    from engine.checkpoints.host_copy import Snapshot
    from engine.devices.peak_memory import take_peak_gb

    ranks, task, layout = trainer.ranks, trainer.task, trainer.layout
    begin = time.perf_counter()
    task.previews()  # which a run draws before its first step
    snapshot, batches = Snapshot(), trainer.batches()
    trainer.train_step(batches)
    trainer.settle()
    found["first_step_seconds"] = time.perf_counter() - begin
    waited, left = batches.wait_seconds, trainer.total_steps - 1
    steps, seconds = _steps(trainer, batches, STEP_SECONDS, left)
    found["step_seconds"] = seconds / steps if steps else found["first_step_seconds"]
    found["data_wait_fraction"] = min(1.0, (batches.wait_seconds - waited) / seconds) if steps else 0.0
    found["made"] = {"steps": trainer.state.step, "skipped": trainer.state.step - trainer.state.updates}
    del batches  # its workers end
    begin = time.perf_counter()
    for _ in range(2):  # the first pays for the memory
        snapshot.take(trainer.state_dict())
    found["save_seconds"] = (time.perf_counter() - begin) / 2
    found["evaluation_seconds"], found["evaluation_whole"] = _evaluation(trainer, eval_batch)
    found["memory_bytes"] = take_peak_gb(ranks.device) * 1e9
    samples = layout.slot_size * layout.accumulation
    found["images_per_second"] = {"together": samples / found["step_seconds"]}
    found["images_per_second"] |= _alone(trainer, samples)


def _steps(trainer: Trainer, batches: DeviceBatches, seconds: float, most: int) -> tuple[int, float]:
    """Makes steps for a while. Returns how many were made, and in what time."""
    begin, steps = time.perf_counter(), 0
    while steps < most and (steps < LEAST_STEPS or time.perf_counter() - begin < seconds):
        trainer.train_step(batches)
        steps += 1
    trainer.settle()
    return steps, time.perf_counter() - begin


def _evaluation(trainer: Trainer, batch_size: int) -> tuple[float | None, bool]:
    """Evaluates, for a while. Returns the seconds that all of it takes, None if nobody knows, and whether it ended."""
    from engine.data.loaders import EvaluationStopped

    ranks = trainer.ranks
    timer = threading.Timer(EVALUATION_SECONDS, lambda: ranks.stop.hear("SIGUSR1"))
    timer.daemon = True
    timer.start()
    begin, before = time.perf_counter(), ranks.heartbeat.ticks
    try:
        evaluated = trainer.evaluate("val")
        evaluated.draw()
        evaluated.curves()
    except EvaluationStopped:
        seconds, done = time.perf_counter() - begin, ranks.heartbeat.ticks - before
        images = trainer.task.metadata().get("images", {}).get("val")
        blocks = -(-images // batch_size) if images else None
        return (seconds * blocks / done if blocks and done else None), False
    finally:
        timer.cancel()
        ranks.stop.signal = None
    return time.perf_counter() - begin, True


def _alone(trainer: Trainer, samples: int) -> dict[str, float]:
    """Measures the loader without the model, and the model with batches that are there, in images a second."""
    from engine.data.device_prefetch import DeviceBatches
    from engine.data.loaders import MicroBatchSampler, TrainLoader

    task, layout, device = trainer.task, trainer.layout, trainer.ranks.device
    sampler = MicroBatchSampler(task.train_order, layout)
    loader = iter(TrainLoader(task.train_data, sampler, task.workers))
    ahead = task.workers.workers * task.workers.prefetch + 1
    kept = [next(loader) for _ in range(max(layout.accumulation, 1))]
    begin = time.perf_counter()
    for _ in range(max(0, ahead - len(kept))):  # read before anybody asked
        next(loader)
        if time.perf_counter() - begin > LOADER_SECONDS:
            break
    begin, read = time.perf_counter(), 0
    while read < 2 or time.perf_counter() - begin < LOADER_SECONDS:
        read += len(next(loader).slot.positions)
    loader_rate = read / (time.perf_counter() - begin)
    loader.close()  # type: ignore[attr-defined]
    batches = DeviceBatches(itertools.cycle(kept), device)
    _steps(trainer, batches, 0.0, 1)
    steps, seconds = _steps(trainer, batches, LOADER_SECONDS, sys.maxsize)
    return {"loader": loader_rate, "model": steps * samples / seconds}


def main(request: Path, result: Path) -> None:
    """Reads a request and writes what was found, in a process that is set up as one that trains."""
    end_with_parent()
    wait_politely()  # before torch is imported
    raise_descriptor_limit()
    write_json(result, rehearse(Request(**json.loads(request.read_text(encoding="utf-8")))))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
