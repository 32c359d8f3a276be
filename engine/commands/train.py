"""One training run from arguments to exit code: configuration, processes, task, folder, loop."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from engine.checkpoints import store
from engine.checkpoints.disk_space import check_free_space
from engine.commands.arguments import TrainArguments
from engine.commands.failure_report import FailureReport
from engine.commands.folder_recorder import FolderRecorder
from engine.commands.resume import Plan, allowed_changes, plan, warn_of_changes
from engine.commands.session import run_session
from engine.config.section import dump_config
from engine.config.sections import RunConfig
from engine.data.batch_plan import BatchLayout, resolve_accumulation
from engine.devices.kinds import device_kind
from engine.distributed.flight_recorder import keep_flight_record_in
from engine.distributed.ranks import Ranks, detect_layout
from engine.distributed.signals import StopRequest
from engine.distributed.slurm import job_end, note_folder, waiting_job
from engine.distributed.start_guard import StartGuard
from engine.distributed.time_limit import Walltime
from engine.errors import EXIT_INTERRUPTED, UserError
from engine.files import check_writable, shown
from engine.log import RunLog, setup_logging
from engine.model.batch_norm import uses_batch_norm
from engine.requeue.restart_limit import reason_to_give_up
from engine.run_folder.environment import describe_rank
from engine.run_folder.failure import Failure
from engine.run_folder.metrics import read_metrics
from engine.run_folder.paths import RunDir
from engine.run_folder.writer_lock import RunLock
from engine.seed import derive
from engine.training.recorder import Recorder
from engine.training.task import Task
from engine.training.trainer import Trainer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskKind:
    """A task as the command line knows it."""

    name: str
    config: type[RunConfig]
    build: Callable[[Any, Ranks], Task]
    """Builds the task of a configuration, its model on the device of the ranks."""


def run_training(kind: TaskKind, arguments: TrainArguments, stop: StopRequest, guard: StartGuard | None = None) -> int:
    """Runs ``python -m TASK.train``; returns its exit code.

    Args:
        stop: set by the process's signal handlers.
        guard: ends this process until the ranks have met.

    Raises:
        UserError: configuration or launcher are not as they should be; later ones are reported here.
    """
    layout = detect_layout(os.environ)
    with setup_logging(layout.rank, layout.world_size) as run_log:
        the_plan = plan(kind.config, arguments)
        if the_plan.finished:
            length = "epochs" if the_plan.config.training.steps is None else "steps"
            folder = the_plan.folder.path if the_plan.folder is not None else arguments.resume
            if the_plan.stopped_early:
                log.info("%s was stopped early; to go on, raise evaluation.early_stopping.patience", folder)
            else:
                log.info("%s has finished; ask for more with training.%s=N", folder, length)
            return 0

        def work(ranks: Ranks, report: FailureReport) -> int:
            return _train(kind, the_plan, arguments, ranks, run_log, report)

        config = the_plan.config
        return run_session(work, config.distributed, layout, config.experiment.root / ".rendezvous", stop, guard)


def _train(
    kind: TaskKind, the_plan: Plan, arguments: TrainArguments, ranks: Ranks, run_log: RunLog, report: FailureReport
) -> int:
    config = the_plan.config
    trainer = build_trainer(kind, config, ranks)
    if arguments.dry_run:
        if the_plan.folder is not None:
            log.info("dry run: from the beginning, whatever %s has reached", shown(the_plan.folder.path))
        ranks.main_decides(lambda: _check_place(the_plan, trainer))
        return _dry_run(trainer)
    folder, report.lock = _open_folder(the_plan, trainer, arguments.request)
    changes = the_plan.changes
    run_log.attach_file(folder.log_file(ranks.rank))
    if the_plan.folder is not None:
        changes = _load_newest(trainer, folder) or changes
    report.folder, report.task = folder, kind.name
    keep_flight_record_in(folder.log_file(ranks.rank).parent)
    report.writer = ranks.main_decides(lambda: folder.lock.read_text(encoding="utf-8"))
    ranks.heartbeat.at("start", trainer.state.step)
    descriptions = [
        json.loads(text) for text in ranks.gather_texts(json.dumps(describe_rank(ranks.rank, ranks.device)))
    ]
    step = trainer.state.step
    reason = ranks.main_decides(lambda: reason_to_give_up(folder, step) or "")
    if ranks.is_main:
        walltime = Walltime(job_end(), ranks.stop)
        report.recorder = FolderRecorder(folder, kind.name, config, descriptions, changes, step=step, walltime=walltime)
    if reason:
        if ranks.is_main:
            report(_given_up(reason, step))
        return 1
    return _fit(trainer, report.recorder, folder)


def _given_up(reason: str, step: int) -> Failure:
    """What is left behind by a job that Slurm restarts again and again, and that gets nowhere."""
    advice = "mend the cause and go on in a new job with --resume"
    return Failure(None, socket.gethostname(), step, f"not tried again: {reason}; {advice}")


def _open_folder(the_plan: Plan, trainer: Trainer, request: Sequence[str]) -> tuple[RunDir, RunLock | None]:
    """The run's folder, on every rank, and on rank 0 the right to write in it.

    Raises:
        UserError: another process writes there, or there is no room for its checkpoints.
    """
    config, locks = the_plan.config, list[RunLock]()

    def decide() -> str:
        _check_place(the_plan, trainer)
        folder = the_plan.folder or RunDir.claim(config.experiment.root)
        locks.append(RunLock(folder))
        if job := waiting_job(folder):
            log.warning("%s: Slurm job %s waits to go on here as well: scancel %s", shown(folder.path), job, job)
        note_folder(folder, config.experiment.root, request)
        return str(folder.path)

    path = Path(trainer.ranks.main_decides(decide))
    return RunDir(path), locks[0] if locks else None


def _check_place(the_plan: Plan, trainer: Trainer) -> str:
    """Makes sure that checkpoints can be written where the run is to lie. Returns nothing, so that one rank may ask.

    Raises:
        UserError: they cannot, or there is no room for them.
    """
    config = the_plan.config
    place = the_plan.folder.checkpoints if the_plan.folder is not None else config.experiment.root
    check_writable(place)
    check_free_space(place, trainer.checkpoint_bytes(), config.checkpoint.keep)
    return ""


def _load_newest(trainer: Trainer, folder: RunDir) -> list[str]:
    """Continues from the newest checkpoint that verifies, the same on every rank; from the beginning if none does.

    Returns:
        The settings that differ from those that the checkpoint was made with, as ``key: old -> new``.

    Raises:
        UserError: settings would change the run silently, its length is behind it already, or it was stopped early.
    """
    path = trainer.ranks.main_decides(lambda: _newest(folder))
    if path:
        saved = trainer.ranks.from_main(partial(store.read, Path(path)))
        changes = allowed_changes(saved["config"], trainer.config, f"--resume {shown(Path(path))}")
        trainer.load_state_dict(saved)
        if changes and trainer.state.stopped_early:
            raise UserError(
                f"--resume: the run was stopped early at step {trainer.state.step}, and would not make another; to go "
                f"on, set evaluation.early_stopping.patience to more than {trainer.state.patience.stale}, or "
                "evaluation.early_stopping to null"
            )
        if trainer.ranks.is_main:
            warn_of_changes(saved["metadata"], trainer.task.metadata())
        for change in changes:
            log.info("changed: %s", change)
        log.info("resumed from %s at step %d", shown(Path(path)), trainer.state.step)
        return changes
    if folder.environment.exists():  # else nobody has started here yet: the folder was claimed for this start
        log.warning("%s has no checkpoint yet: starting from the beginning", shown(folder.path))
    return []


def _newest(folder: RunDir) -> str:
    """Path of the newest checkpoint that verifies; empty if the run has not written any.

    Raises:
        UserError: there are checkpoints, but none is intact: starting over would discard what the run has recorded.
    """
    if folder.metrics.exists():
        read_metrics(folder.metrics)  # the run will go on writing there: what is wrong with it is better known now
    path = store.newest(folder.checkpoints, log.warning)
    if path is None and any(folder.checkpoints.glob("*.pt")):
        raise UserError(
            f"--resume: none of the checkpoints in {folder.checkpoints} is intact; remove them to start this run from "
            "its beginning, or start a new one without --resume (where only the checksums were lost, `sha256sum "
            "step_N.pt > step_N.pt.sha256` accepts a file as it is)"
        )
    return str(path or "")


def _fit(trainer: Trainer, recorder: Recorder, folder: RunDir) -> int:
    done = trainer.fit(recorder)
    trainer.ranks.heartbeat.at("end")
    recorder.end("finished" if done else "interrupted")
    if done:
        return 0
    cause, step = trainer.ranks.stop.signal, trainer.state.step
    log.warning(
        "stopped by %s at step %d; go on with --resume %s",
        cause.name if cause else "another rank",
        step,
        shown(folder.path),
    )
    return EXIT_INTERRUPTED


def build_trainer(kind: TaskKind, config: RunConfig, ranks: Ranks) -> Trainer:
    """Builds everything that a run needs and that can be wrong, before its folder is claimed.

    Raises:
        UserError: data, model, weights or batch sizes are not as they should be.
    """
    prepare_torch(config, ranks)
    task = kind.build(config, ranks)
    training = config.training
    accumulation, slot_size = resolve_accumulation(
        training.global_batch_size,
        training.micro_batch_size,
        training.accumulation,
        ranks.world_size,
        multiple_of=task.slot_multiple,
    )
    layout = BatchLayout(
        task.train_order.num_samples, training.global_batch_size, accumulation, ranks.world_size, task.drop_last
    )
    if uses_batch_norm(task.model) and layout.smallest_slot == 1:
        raise UserError(
            "batch norm needs at least two samples on a device, but "
            + (
                f"{layout.num_samples} samples leave one over in an epoch's last batch; use data.drop_last=true, or "
                f"another training.global_batch_size than {training.global_batch_size}"
                if slot_size > 1
                else f"training.global_batch_size={training.global_batch_size} over {ranks.world_size} ranks and "
                f"{accumulation} accumulation steps leaves one; use a larger batch or fewer of them"
            )
        )
    log.info(
        "%s: %s, %d rank(s) on %s; %d samples, %d steps an epoch of %d = %d rank(s) x %d accumulated x %d",
        kind.name,
        type(task.model).__name__,
        ranks.world_size,
        ranks.device,
        layout.num_samples,
        layout.steps_per_epoch,
        training.global_batch_size,
        ranks.world_size,
        accumulation,
        slot_size,
    )
    return Trainer(config, task, layout, ranks)


def prepare_torch(config: RunConfig, ranks: Ranks) -> None:
    """Process-wide settings: determinism, memory, and the seed that initial weights are drawn with."""
    if config.training.deterministic:
        torch.use_deterministic_algorithms(True)
    device_kind(ranks.device).set_up(config.training)
    torch.manual_seed(derive(config.experiment.seed, "weights"))


def _dry_run(trainer: Trainer) -> int:
    """One step on everything that was built, and nothing written."""
    if trainer.ranks.is_main:
        print(dump_config(trainer.config))
    trainer.train_step(trainer.batches())
    trainer.settle()
    values = ", ".join(f"{name} {value:.4g}" for name, value in trainer.state.window.means().items())
    log.info("dry run: one step made (%s); nothing was written", values)
    return 0
