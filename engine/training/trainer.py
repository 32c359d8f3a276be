"""The one training loop: it knows steps, batches, gradients, checkpoints, and a task by engine.training.task alone."""

from __future__ import annotations

import logging
import math
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from engine.checkpoints import store
from engine.checkpoints.disk_space import estimate_checkpoint_bytes
from engine.config.sections import RunConfig, default_mode
from engine.data.batch_plan import BatchLayout
from engine.data.device_prefetch import DeviceBatches, Throughput
from engine.data.loaders import EvaluationStopped, MicroBatchSampler, TrainLoader
from engine.devices.kinds import DeviceNumbers
from engine.devices.peak_memory import take_peak_gb
from engine.devices.precision import fp16_hint, resolve_precision
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.model.batch_norm import BatchNormStatistics
from engine.model.compiling import uncompiled
from engine.model.freezing import Freezing
from engine.model.wrap import prepare_model, wrap_model
from engine.run_folder.readme import skipped_end
from engine.seed import derive
from engine.training.ema import MovingAverage
from engine.training.evaluation import check_metric, evaluate
from engine.training.optimizer import (
    add_parameters,
    build_optimizer,
    load_named_state,
    named_state,
    set_rate,
    step_unless,
)
from engine.training.recorder import Recorder
from engine.training.schedule import build_schedule
from engine.training.sharding import ShardedState, shard
from engine.training.state import RunState, Window
from engine.training.task import Evaluated, Task

log = logging.getLogger(__name__)


class NonFiniteError(RuntimeError):
    """Too many steps in a row, or all of a run, had a loss or gradient that is not finite."""


class _Unread(NamedTuple):
    """What an optimizer step came to, as long as only the device knows."""

    step: int
    names: list[str]
    samples: int
    numbers: DeviceNumbers
    """The sum of each name over the samples, how many ranks were asked to stop and to save, and the gradient's norm."""


class Trainer:
    """Trains ``task`` as ``config`` says; on every rank alike."""

    def __init__(self, config: RunConfig, task: Task, layout: BatchLayout, ranks: Ranks) -> None:
        self.config, self.task, self.layout, self.ranks = config, task, layout, ranks
        self.state = RunState()
        self.stopping = False
        """Whether a rank has been asked to stop, as all ranks know."""
        self.throughput = Throughput()
        self.save_wanted = False
        """Whether rank 0's clock has asked for a checkpoint, as all ranks know."""
        self._save_asked = False
        self._unread: _Unread | None = None
        training = config.training
        check_metric(config.evaluation, task.metric_names, task.metric)
        self.precision = resolve_precision(training.precision, ranks.device)
        if ranks.is_main and (hint := fp16_hint(training.precision, ranks.device)):
            log.warning("%s", hint)
        self.total_steps = training.steps or (training.epochs or 0) * layout.steps_per_epoch
        self.schedule = build_schedule(config.schedule, config.optimizer, layout.steps_per_epoch, self.total_steps)
        if ranks.is_main and 0 < self.total_steps <= self.schedule.warmup_steps:
            log.warning(
                "the warm-up of %d steps is not shorter than the run of %d: it never ends",
                self.schedule.warmup_steps,
                self.total_steps,
            )
        early_stopping, evaluations = config.evaluation.early_stopping, -(-self.total_steps // self._evaluation_steps())
        if ranks.is_main and early_stopping is not None and 0 < evaluations <= early_stopping.patience:
            log.warning(
                "evaluation.early_stopping: a patience of %d never runs out in %d evaluations",
                early_stopping.patience,
                evaluations,
            )
        self._bare = prepare_model(task.model, config, ranks)
        self.freezing = Freezing(task.model, config.finetune, layout.steps_per_epoch)
        self.optimizer = build_optimizer(task.model, config.optimizer, config.finetune)
        self.sharded: ShardedState | None = None
        if training.shard == "optimizer":
            self.sharded = shard(self.optimizer, config, ranks)
        self._follow_freezing()
        if ranks.is_main:
            self.freezing.check_reached(self.total_steps)
        self.scaler = self.precision.scaler()
        self.ema = None if training.ema is None else MovingAverage(task.model, training.ema)

    # -- the loop --------------------------------------------------------------------------------------------------

    def fit(self, recorder: Recorder) -> bool:
        """Trains to the end. Returns False if a stop request ended it early, after saving.

        Raises:
            NonFiniteError: too many steps in a row were skipped, or all that the run has.
        """
        batches, state = self.batches(), self.state
        recorder.begin(state, self.epoch, self.total_steps)
        if not state.step:
            recorder.keep(self.task.previews)
        while True:
            if state.step >= self.total_steps:
                self._require_updates()  # before an evaluation, whose weights are kept
            if state.evaluation_owed and not self._evaluate(recorder):
                return False
            if state.step >= self.total_steps or state.stopped_early:
                self._require_updates()
                self._warn_of_skipped_end()
                return True
            self._save_asked = recorder.minutes_due(self.config.checkpoint.every_minutes)
            self.train_step(batches)
            recorder.stepped(state, self.epoch)
            if state.step % self.config.logging.every_steps == 0 or self._at(self.layout.steps_per_epoch):
                self._record(recorder)
            state.evaluation_owed = self._evaluation_due()
            if state.evaluation_owed:
                self.settle()
            if self.stopping:  # a stop has a deadline, an evaluation can wait
                self.save(recorder)
                return False
            if not state.evaluation_owed and self._save_due():
                self.save(recorder)

    def train_step(self, batches: DeviceBatches) -> None:
        """Queues one optimizer step on the device.

        A step whose loss or gradient is not finite changes nothing but the position in the data. The device finds that
        out by itself, so that it always has work: the host reads a step's numbers when it has queued the passes of the
        next one, see :meth:`settle`.
        """
        state, begin, waited = self.state, time.perf_counter(), batches.wait_seconds
        self._unfreeze(state.step)
        sums, samples = self._accumulate_gradients(batches)
        names = list(sums)
        heartbeat, device = self.ranks.heartbeat, self.ranks.device
        requests = (bool(self.ranks.stop), self._save_asked)
        totals = torch.stack([*sums.values(), *(torch.full((), float(asked), device=device) for asked in requests)])
        heartbeat.at("reduce")
        self.ranks.sum_(totals)
        self.scaler.unscale_(self.optimizer)
        packed = torch.cat([totals, self._clip().reshape(1)])
        skipped = 1.0 - packed.isfinite().all().float()
        heartbeat.at("data")
        batches.prefetch()  # the device is given its next batch before the host waits for the last step's numbers
        heartbeat.at("update")
        self.settle()  # the rate of this step depends on whether the last one was skipped
        set_rate(self.optimizer, self.rate())
        step_unless(skipped, self.optimizer)
        self.batch_norm.settle(skipped)
        if self.ema is not None:
            self.ema.follow(state.updates + 1, skipped)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self._unread = _Unread(state.step, names, samples, DeviceNumbers(packed))
        state.step += 1
        self.throughput.add(samples, time.perf_counter() - begin, batches.wait_seconds - waited)

    def settle(self) -> None:
        """Reads what the last step came to and counts it, if that has not been done.

        To be called, by all ranks alike, before anything but :meth:`train_step` uses the run's state.
        """
        if self._unread is None:
            return
        (step, names, samples, numbers), self._unread = self._unread, None
        *values, stops, saves, grad_norm = numbers.read()
        self.stopping = self.stopping or stops > 0
        self.save_wanted = self.save_wanted or saves > 0
        sums = dict(zip(names, values, strict=True))
        if all(math.isfinite(value) for value in (*values, grad_norm)):
            self.state.updates += 1
            self.state.skipped_in_row = 0
            self.state.window.add(sums, samples, grad_norm)
        else:
            self._count_skipped(step + 1, sums, grad_norm)

    def batches(self) -> DeviceBatches:
        """Micro-batches of this rank from the current step to the end of the run."""
        sampler = MicroBatchSampler(
            self.task.train_order, self.layout, self.ranks.rank, self.state.step, self.total_steps
        )
        return DeviceBatches(TrainLoader(self.task.train_data, sampler, self.task.workers), self.ranks.device)

    @property
    def epoch(self) -> float:
        """Epochs done, with the part of the current one."""
        return self.state.step / self.layout.steps_per_epoch

    def rate(self) -> float:
        """The base learning rate of the coming update."""
        factor = self.schedule.factor(self.state.updates)
        if self.config.schedule.name == "plateau":
            factor *= self.state.plateau.scale
        return self.config.optimizer.lr * factor

    def _unfreeze(self, step: int) -> None:
        """Takes into training what is due in optimizer step ``step``, or was due before it.

        Phase after phase, also where a resumed run jumps over several: the optimizer's groups are the same then.
        """
        changed = False
        while self.freezing.advance(step):
            add_parameters(self.optimizer, self.task.model, self.config.optimizer, self.config.finetune)
            if self.sharded is not None:
                self.sharded.assign()
            changed = True
        if changed:
            self._follow_freezing()

    def _follow_freezing(self) -> None:
        """Sets up all that depends on which parameters are trained."""
        if self.ranks.is_main and self.freezing.trained:
            self.freezing.report()
        self.network = wrap_model(self._bare, self.config, self.ranks)
        if self.config.training.compile:
            self.ranks.heartbeat.warm_up()  # the coming step compiles anew
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.batch_norm = BatchNormStatistics(self.task.model, self.ranks, self.freezing.held)

    def _accumulate_gradients(self, batches: DeviceBatches) -> tuple[dict[str, torch.Tensor], int]:
        """Forward and backward passes of one optimizer step.

        Returns this rank's sums over samples of each metric, and the number of samples of the step over all ranks.
        """
        self.freezing.train_mode()
        seed, step, rank = self.config.experiment.seed, self.state.step, self.ranks.rank
        heartbeat = self.ranks.heartbeat
        sums: dict[str, torch.Tensor] = {}
        for micro_step in range(self.layout.accumulation):
            heartbeat.at("data", step)
            batch = batches.next()
            heartbeat.at("forward")
            torch.manual_seed(derive(seed, "dropout", step, micro_step, rank))
            with self._without_sync(micro_step < self.layout.accumulation - 1):
                with self.precision.autocast():
                    results = self.task.training_step(self.network, batch.data)
                heartbeat.at("backward")
                # DDP averages over ranks, so the mean over all samples needs the factor `world_size`.
                self.scaler.scale(results["loss"] * (batch.slot.weight * self.ranks.world_size)).backward()
            for name, value in results.items():
                # A batch that only keeps its rank busy counts nothing, not even if it is not finite.
                share = value.detach().float() * batch.slot.num_samples if batch.slot.num_samples else 0.0
                sums[name] = sums.get(name, torch.zeros((), device=self.ranks.device)) + share
        return sums, batch.slot.step_samples

    def _without_sync(self, wanted: bool) -> AbstractContextManager[None]:
        """Gradients of all but the last micro-step stay on their rank."""
        if wanted and isinstance(self.network, DistributedDataParallel):
            return self.network.no_sync()
        return nullcontext()

    def _clip(self) -> torch.Tensor:
        """The gradient's 2-norm before clipping, a scalar on the device."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients, foreach=True)
        limit = self.config.training.clip_grad_norm
        if limit is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, limit, norm, foreach=True)
        return norm

    def _count_skipped(self, step: int, values: dict[str, float], grad_norm: float) -> None:
        state, limit = self.state, self.config.training.max_nonfinite_steps
        state.skipped_in_row += 1
        what = ", ".join(f"{name} {value:g}" for name, value in {**values, "grad_norm": grad_norm}.items())
        log.warning("step %d skipped: not finite (sums: %s); %d in a row", step, what, state.skipped_in_row)
        if state.skipped_in_row >= limit:
            raise NonFiniteError(
                f"{limit} steps in a row, up to step {step}, had a loss or gradient that is not finite; "
                f"{self._cure_of_skipping()}"
            )

    def _cure_of_skipping(self) -> str:
        return (
            f"lower optimizer.lr (now {self.config.optimizer.lr:g}), set training.clip_grad_norm, or use "
            f"training.precision=fp32 (now {self.precision.name})"
        )

    def _require_updates(self) -> None:
        """Refuses to call a run finished whose weights are those that it began with."""
        self.settle()
        if self.state.step and not self.state.updates:
            longer = ", or make more steps: fp16 skips some until its scale fits" if self.scaler.is_enabled() else ""
            raise NonFiniteError(
                f"nothing was trained: all {self.state.step} steps of the run were skipped, since each had a loss or "
                f"gradient that is not finite; {self._cure_of_skipping()}{longer}"
            )

    def _warn_of_skipped_end(self) -> None:
        if (skipped := self.state.skipped_in_row) and self.ranks.is_main:
            log.warning("%s; %s", skipped_end(self.state.step, skipped), self._cure_of_skipping())

    # -- what happens between steps --------------------------------------------------------------------------------

    def _at(self, every: int) -> bool:
        return self.state.step % every == 0 or self.state.step == self.total_steps

    def _record(self, recorder: Recorder) -> None:
        """Writes the training record: means over the steps since the last one."""
        self.settle()
        metrics = {
            **self.state.window.means(),
            "lr": max(group["lr"] for group in self.optimizer.param_groups),  # the head's, where rates differ
            "skipped_steps": self.state.skipped,
        }
        measured = {**self.throughput.metrics(self.ranks.world_size), "memory_gb": take_peak_gb(self.ranks.device)}
        recorder.trained(self.state, self.epoch, {**metrics, **measured})
        self.state.window, self.throughput = Window(), Throughput()

    def _evaluation_steps(self) -> int:
        """Steps from one evaluation to the next."""
        evaluation = self.config.evaluation
        return evaluation.every_steps or evaluation.every_epochs * self.layout.steps_per_epoch

    def _evaluation_due(self) -> bool:
        return self._at(self._evaluation_steps())

    def _evaluate(self, recorder: Recorder) -> bool:
        """Evaluates, acts on the result (best checkpoint, plateau, early stopping) and saves.

        Returns False if a stop request interrupted it; what is saved then begins with this evaluation.
        """
        evaluation, state = self.config.evaluation, self.state
        try:
            evaluated = self.evaluate("val")
        except EvaluationStopped:
            self.save(recorder)
            return False
        state.evaluation_owed, state.findings = False, evaluated.findings
        name = evaluation.metric or self.task.metric
        mode, value = evaluation.mode or default_mode(name), evaluated.metrics[name]
        best = state.best.get(name)
        improved = not math.isnan(value) and (best is None or (value > best if mode == "max" else value < best))
        if improved:
            state.best = {"step": state.step, "epoch": self.epoch, name: value}
        if math.isnan(value):
            log.warning("%s is not a number: no checkpoint is the best by it, and it never counts as progress", name)
        if self.config.schedule.name == "plateau":
            schedule, scale = self.config.schedule, state.plateau.scale
            state.plateau = state.plateau.update(
                value, mode, schedule.plateau, schedule.min_lr / self.config.optimizer.lr
            )
            if state.plateau.scale != scale:
                log.info("no better %s: the rate is lowered to %.3g", name, self.rate())
        if evaluation.early_stopping is not None and not self.freezing.unfreezes_before(self.total_steps):
            state.patience = state.patience.update(value, mode, evaluation.early_stopping.min_delta)
            state.stopped_early = self._out_of_patience()
        recorder.evaluated(state, self.epoch, "val", evaluated.metrics)
        if state.stopped_early:
            log.info("stopping early: %d evaluations in a row without better %s", state.patience.stale, name)
        if improved:
            recorder.show(state, "val", evaluated.draw)
        self.save(recorder, best=improved)
        return True

    def _out_of_patience(self) -> bool:
        """Whether early stopping, as it is configured now, ends the run."""
        early_stopping = self.config.evaluation.early_stopping
        return early_stopping is not None and self.state.patience.stale >= early_stopping.patience

    def evaluate(self, split: str) -> Evaluated:
        """What is measured on ``split`` of the weights that ``evaluation.weights`` names."""
        model = self.task.model
        if self.ema is not None and self.config.evaluation.weights != "model":
            model = self.ema.module
        self.ranks.heartbeat.at("evaluate")
        with uncompiled():
            return evaluate(self.task, model, split, self.precision, self.ranks)

    def _save_due(self) -> bool:
        every = self.config.checkpoint.every_steps
        return (every is not None and self._at(every)) or self.save_wanted

    # -- state -----------------------------------------------------------------------------------------------------

    def save(self, recorder: Recorder, best: bool = False) -> None:
        """Has rank 0 write a checkpoint; to be called on every rank."""
        self.ranks.heartbeat.at("save")
        self.settle()
        if self.ranks.is_main:
            recorder.save(self.state, self.state_dict(), best)
        elif self.sharded is not None:
            self._optimizer_state()
        self.save_wanted = False

    def checkpoint_bytes(self) -> int:
        """The most that a checkpoint of this run takes on disk."""
        ema = self.ema.module if self.ema is not None else None
        return estimate_checkpoint_bytes(self.task.model, ema, self.optimizer, self.freezing.later())

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step reads, as plain tensors and plain types under the bare model's names.

        With a sharded optimizer state it is to be called on every rank, and is whole on rank 0.
        """
        self.settle()
        return {
            "format": store.FORMAT,
            "task": self.task.name,
            "config": self.config.model_dump(mode="json"),
            "metadata": self.task.metadata(),
            "model": self.task.model.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema is not None else None,
            "optimizer": self._optimizer_state(),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "run": self.state.state_dict(),
        }

    def _optimizer_state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the optimizer, on rank 0. If it is sharded, all ranks have to call this."""
        state = named_state(self.optimizer, self.task.model)
        return state if self.sharded is None else self.sharded.gather(state)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continues from what :meth:`state_dict` returned.

        Raises:
            UserError: an entry is missing, surplus, or does not fit the configured model; it is named.
        """
        expected = set(self.state_dict())
        if expected != set(saved):
            missing, surplus = sorted(expected - set(saved)), sorted(set(saved) - expected)
            raise UserError(f"checkpoint: missing entries {missing}, surplus entries {surplus}")
        if (saved["ema"] is None) != (self.ema is None):
            raise UserError("checkpoint: training.ema is set in one of checkpoint and configuration, but not in both")
        try:
            self.task.model.load_state_dict(saved["model"])
            if self.ema is not None:
                self.ema.module.load_state_dict(saved["ema"])
            state = RunState.from_state(saved["run"])
            self._unfreeze(state.step - 1)  # what is due in the coming step was not when this was saved
            optimizer = saved["optimizer"]
            if self.sharded is not None:
                optimizer = self.sharded.own_part(optimizer, self.task.model)
            load_named_state(self.optimizer, self.task.model, optimizer)
            self.scaler.load_state_dict(saved["scaler"])
            self.state = state
            self.state.stopped_early = self._out_of_patience()
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(f"checkpoint does not fit this configuration: {error}") from None
        if self.state.step > self.total_steps:
            raise UserError(
                f"the run is at step {self.state.step} (epoch {self.epoch:.4g}) already, beyond the {self.total_steps} "
                "steps it is to have; ask for more with training.epochs or training.steps"
            )
        self.batch_norm.reload()
