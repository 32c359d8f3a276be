"""One training run from arguments to exit code: configuration, processes, task, folder, loop."""

from __future__ import annotations

import logging
import os
import shlex
import socket
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from engine.checkpoints import store
from engine.checkpoints.disk_space import check_free_space
from engine.commands.arguments import TrainArguments
from engine.commands.build import build_trainer, told_of_memory
from engine.commands.failure_report import FailureReport
from engine.commands.folder_recorder import FolderRecorder
from engine.commands.resume import Plan, allowed_changes, plan, require_same_classes, warn_of_changes
from engine.commands.session import reindex, run_session
from engine.config.load import dump_config, emptied
from engine.config.run import RunConfig
from engine.distributed.flight_recorder import keep_flight_record_in
from engine.distributed.layout import detect_layout
from engine.distributed.ranks import Ranks
from engine.distributed.slurm import job_end, note_folder, waiting_job
from engine.errors import EXIT_INTERRUPTED, UserError
from engine.files import check_writable, shown
from engine.log import RunLog, setup_logging
from engine.model.cost import model_cost
from engine.process.signals import StopRequest
from engine.process.start_guard import StartGuard
from engine.process.time_limit import Walltime
from engine.requeue.restart_limit import restart_limit_reason
from engine.run_folder.environment import describe_rank
from engine.run_folder.failure import Failure
from engine.run_folder.metrics import read_metrics
from engine.run_folder.paths import RunDir
from engine.run_folder.readme import resume_command
from engine.run_folder.writer_lock import RunLock
from engine.task.moved_data import check_same_data, hint_of_moves
from engine.task.spec import TaskSpec
from engine.training.recorder import Recorder
from engine.training.trainer import Trainer

log = logging.getLogger(__name__)


def run_training(spec: TaskSpec, arguments: TrainArguments, stop: StopRequest, guard: StartGuard | None = None) -> int:
    """Runs ``python -m TASK.train``; returns its exit code.

    Args:
        stop: set by the process's signal handlers.
        guard: ends this process until the ranks have met.

    Raises:
        UserError: configuration or launcher are not as they should be; later ones are reported here.
    """
    layout = detect_layout(os.environ)
    with setup_logging(layout.rank, layout.world_size) as run_log:
        for line in emptied(arguments.overrides, spec.schema()):
            log.info("%s", line)
        the_plan = plan(spec.schema(), arguments)
        if the_plan.finished:
            log.info("%s", the_plan.finished)
            return 0

        def work(ranks: Ranks, report: FailureReport) -> int:
            return _train(spec, the_plan, arguments, ranks, run_log, report)

        config = the_plan.config
        root = config.experiment.root if the_plan.folder is None else the_plan.folder.path.parent  # it may have moved
        return run_session(work, config.distributed, layout, root / ".rendezvous", stop, guard)


def _train(
    spec: TaskSpec, the_plan: Plan, arguments: TrainArguments, ranks: Ranks, run_log: RunLog, report: FailureReport
) -> int:
    config = the_plan.config
    if arguments.reindex:
        reindex(config, ranks)
    with told_of_memory(config), hint_of_moves(config) if the_plan.folder is not None else nullcontext():
        trainer = build_trainer(spec, config, ranks)
    if arguments.dry_run:
        if the_plan.folder is not None:
            log.info("dry run: from the beginning, whatever %s has reached", shown(the_plan.folder.path))
        ranks.from_main(lambda: _check_place(the_plan, trainer))
        with told_of_memory(config):
            return _dry_run(trainer, config)
    folder = ranks.from_main(lambda: _open_folder(the_plan, trainer, arguments.request, report))
    changes = list(the_plan.changes)
    run_log.attach_file(folder.log_file(ranks.rank))
    if the_plan.folder is not None:
        changes = _load_newest(trainer, folder, config) or changes
    report.folder, report.task = folder, spec.name
    keep_flight_record_in(folder.log_file(ranks.rank).parent)
    report.writer = ranks.from_main(lambda: folder.lock.read_text(encoding="utf-8"))
    ranks.heartbeat.at("start", trainer.state.step)
    descriptions = ranks.gather(describe_rank(ranks.rank, ranks.device))
    go_on = resume_command(spec.name, folder.path, len(descriptions), len({each["host"] for each in descriptions}))
    step = trainer.state.step
    reason = ranks.from_main(lambda: restart_limit_reason(folder, step))
    if ranks.is_main:
        report.recorder = recorder = FolderRecorder(
            folder,
            spec.name,
            config=config,
            directions=trainer.task.metrics.recorded(config),
            metric=trainer.task.metrics.deciding(config)[0],
            cost=model_cost(trainer.task.model, lambda: trainer.task.example()),
            ranks=descriptions,
            changes=changes,
            step=step,
            walltime=Walltime(job_end(), ranks.stop),
        )
        ranks.stop.before_the_end = recorder.end_at_once
    else:
        ranks.stop.before_the_end = partial(time.sleep, 1.0)  # or rank 0, told as well, might take it for a failure
    if reason:
        if ranks.is_main:
            advice = f"mend the cause and go on with: {go_on}"
            report(Failure(None, socket.gethostname(), step, f"not tried again: {reason}; {advice}"))
        return 1
    return _fit(trainer, report.recorder, go_on)


def _open_folder(the_plan: Plan, trainer: Trainer, request: Sequence[str], report: FailureReport) -> RunDir:
    """Returns the run's folder, once rank 0, which calls this, has the right to write in it.

    Raises:
        UserError: another process writes there, or there is no room for its checkpoints.
    """
    _check_place(the_plan, trainer)
    root = the_plan.config.experiment.root
    folder = the_plan.folder or RunDir.claim(root)
    report.lock = RunLock(folder)
    if job := waiting_job(folder):
        log.warning("%s: Slurm job %s waits to go on here as well: scancel %s", shown(folder.path), job, job)
    note_folder(folder, root, request)
    return folder


def _check_place(the_plan: Plan, trainer: Trainer) -> None:
    """Makes sure that checkpoints can be written where the run is to lie.

    Raises:
        UserError: they cannot, or there is no room for them.
    """
    config = the_plan.config
    place = the_plan.folder.checkpoints if the_plan.folder is not None else config.experiment.root
    check_writable(place, "experiment.root" if the_plan.folder is None else "--resume")
    check_free_space(place, trainer.learner.checkpoint_bytes(), config.checkpoint.keep)


def _load_newest(trainer: Trainer, folder: RunDir, config: RunConfig) -> list[str]:
    """Continues from the newest checkpoint that verifies, the same on every rank; from the beginning if none does.

    Returns:
        The settings that differ from those that the checkpoint was made with, as ``key: old -> new``.

    Raises:
        UserError: settings would change the run silently, data that were moved are others, its length is behind it
            already, or it was stopped early.
    """
    path = trainer.ranks.from_main(lambda: _newest(folder))
    if path:
        saved = trainer.ranks.from_main(partial(store.read, path))
        changes = allowed_changes(saved["config"], config, f"--resume {shown(path)}")
        check_same_data(
            saved["config"], config, saved["metadata"], trainer.task.metadata(), f"--resume {shown(folder.path)}"
        )
        require_same_classes(saved["metadata"], trainer.task.metadata(), f"--resume {shown(path)}")
        trainer.load_state_dict(saved)
        if trainer.state.step > trainer.total_steps:
            raise UserError(
                f"the run is at step {trainer.state.step} (epoch {trainer.epoch:.4g}) already, beyond the "
                f"{trainer.total_steps} steps it is to have; ask for more with training.epochs or training.steps"
            )
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
        log.info("resumed from %s at step %d", shown(path), trainer.state.step)
        return changes
    if folder.environment.exists():  # else nobody has started here yet: the folder was claimed for this start
        log.warning("%s has no checkpoint yet: starting from the beginning", shown(folder.path))
    return []


def _newest(folder: RunDir) -> Path | None:
    """Returns the newest checkpoint that verifies; None if the run has not written any.

    Raises:
        UserError: there are checkpoints, but none is intact: starting over would discard what the run has recorded.
    """
    if folder.metrics.exists():
        read_metrics(folder.metrics)  # the run will go on writing there: what is wrong with it is better known now
    path = store.newest(folder.checkpoints, log.warning)
    if path is None and (there := sorted(folder.checkpoints.glob("*.pt"))):
        file, digest = shlex.quote(there[-1].name), shlex.quote(f"{there[-1].name}.sha256")
        raise UserError(
            f"--resume: none of the checkpoints in {folder.checkpoints} is intact; remove them to start this run from "
            "its beginning, or start a new one without --resume (where only the checksums were lost, this accepts the "
            f"newest as it is: cd {shown(folder.checkpoints)} && sha256sum {file} > {digest})"
        )
    return path


def _fit(trainer: Trainer, recorder: Recorder, go_on: str) -> int:
    cause = None if trainer.fit(recorder) else trainer.ranks.cause_of_stop()
    trainer.ranks.heartbeat.at("end")
    recorder.end("finished" if cause is None else "interrupted")
    if cause is None:
        return 0
    log.warning("stopped by %s at step %d; go on with: %s", cause.name, trainer.state.step, go_on)
    return EXIT_INTERRUPTED


def _dry_run(trainer: Trainer, config: RunConfig) -> int:
    """Makes one step on everything that was built, and writes nothing."""
    if trainer.ranks.is_main:
        print(dump_config(config))
    trainer.train_step(trainer.batches())
    trainer.settle()
    values = ", ".join(f"{name} {value:.4g}" for name, value in trainer.state.window.means().items())
    if values:
        log.info("dry run: one step made (%s); nothing was written", values)
    else:
        log.warning("dry run: the one step gave numbers that are not finite, and was skipped; nothing was written")
    return 0
