"""From a configuration to everything that trains it. What is built here is given the sections that it uses."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from engine.checkpoints.store import first_line
from engine.config.load import leaves
from engine.config.run import RunConfig
from engine.config.training import TrainingConfig
from engine.data.batch_plan import BatchLayout, resolve_accumulation
from engine.devices.kinds import device_kind
from engine.devices.precision import fp16_hint
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.model.batch_norm import uses_batch_norm
from engine.seed import derive
from engine.task.spec import TaskSpec
from engine.task.task import Task
from engine.training.learner import Learner
from engine.training.schedule import Intervals, Schedule
from engine.training.selection import Selection, build_selection
from engine.training.trainer import Trainer

log = logging.getLogger(__name__)


def build_trainer(spec: TaskSpec, config: RunConfig, ranks: Ranks, planned: Ranks | None = None) -> Trainer:
    """Builds everything that a run needs and that can be wrong, before its folder is claimed.

    Args:
        planned: The ranks over which batches are divided, where one of them is to rehearse its part alone.

    Raises:
        UserError: data, model, weights or batch sizes are not as they should be.
    """
    prepare_torch(config.training, config.experiment.seed, ranks)
    task = spec.task(config, ranks)
    return assemble_trainer(task, batch_layout(task, config.training, planned or ranks), config, ranks)


@contextmanager
def told_of_memory(config: RunConfig) -> Iterator[None]:
    """Turns a lack of memory into a UserError with the settings that ask for it."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        lacking = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not lacking and not any(
            text in str(error) for text in ("allocate memory", "MemoryError", "size calculation overflow")
        ):
            raise
        keys = ("data.image_size", "training.global_batch_size", "training.micro_batch_size", "evaluation.batch_size")
        values = leaves(config)
        asked = ", ".join(f"{key}={values[key]}" for key in keys if key in values)
        text = f"there is not enough memory for {asked} and a model of this size: {first_line(error)}"
        raise UserError(f"{text}; make what is too large smaller") from None


def prepare_torch(training: TrainingConfig, seed: int, ranks: Ranks) -> None:
    """Makes process-wide settings: determinism, memory, and the seed that initial weights are drawn with."""
    if training.deterministic:
        torch.use_deterministic_algorithms(True)
    device_kind(ranks.device).set_up(training)
    torch.manual_seed(derive(seed, "weights"))


def assemble_trainer(task: Task, layout: BatchLayout, config: RunConfig, ranks: Ranks) -> Trainer:
    """Puts the training of ``task`` together.

    Raises:
        UserError: model, optimizer or metric are not as they should be.
    """
    training, evaluation = config.training, config.evaluation
    total_steps = training.steps or (training.epochs or 0) * layout.steps_per_epoch
    schedule = Schedule(config.schedule, config.optimizer.lr, layout.steps_per_epoch, total_steps)
    intervals = Intervals(evaluation, config.checkpoint, config.logging, layout.steps_per_epoch, total_steps)
    selection = build_selection(config, task.metrics)
    if ranks.is_main:
        if hint := fp16_hint(training.precision, ranks.device):
            log.warning("%s", hint)
        warn_of_short_run(schedule, intervals, selection)
    learner = Learner(
        task.model,
        training,
        config.optimizer,
        config.finetune,
        config.distributed,
        evaluation.weights,
        ranks,
        layout.steps_per_epoch,
    )
    if ranks.is_main:
        learner.freezing.check_reached(total_steps)
    return Trainer(
        task,
        learner,
        layout,
        ranks,
        schedule=schedule,
        intervals=intervals,
        selection=selection,
        max_nonfinite_steps=training.max_nonfinite_steps,
        seed=config.experiment.seed,
        config=config.model_dump(mode="json"),
    )


def batch_layout(task: Task, training: TrainingConfig, ranks: Ranks) -> BatchLayout:
    """Cuts global batches into micro-batches of ranks.

    Raises:
        UserError: they cannot be cut so, or leave a single sample where batch norm needs two.
    """
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
        task.name,
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
    return layout


def warn_of_short_run(schedule: Schedule, intervals: Intervals, selection: Selection) -> None:
    """Warns of a warm-up or a patience that is longer than the run."""
    steps, early_stopping = intervals.total_steps, selection.early_stopping
    if 0 < steps <= schedule.warmup_steps:
        text = "the warm-up of %d steps is not shorter than the run of %d: it never ends"
        log.warning(text, schedule.warmup_steps, steps)
    evaluations = -(-steps // intervals.evaluate_every)
    if early_stopping is not None and 0 < evaluations <= early_stopping.patience:
        text = "evaluation.early_stopping: a patience of %d never runs out in %d evaluations"
        log.warning(text, early_stopping.patience, evaluations)
