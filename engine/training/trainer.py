"""The one training loop: it knows steps, batches, gradients, checkpoints, and a task by engine.task.task alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from engine.checkpoints import store
from engine.data.batch_plan import BatchLayout
from engine.data.device_prefetch import DeviceBatches, Throughput
from engine.data.loaders import EvaluationStopped, MicroBatchSampler, TrainLoader
from engine.data.read_meter import WaitHint
from engine.data.unreadable import require_readable
from engine.devices.kinds import DeviceNumbers
from engine.devices.peak_memory import take_peak_gb
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.model.compiling import uncompiled
from engine.run_folder.readme import skipped_end
from engine.seed import derive
from engine.task.metrics import SECOND
from engine.task.task import Evaluated, Task
from engine.training.evaluation import evaluate, judge
from engine.training.learner import Learner
from engine.training.recorder import Recorder
from engine.training.schedule import Intervals, Schedule
from engine.training.selection import Selection
from engine.training.state import RunState, Window
from engine.training.step_numbers import NonFiniteError, SampleSums, StepResult, cure_of_skips

log = logging.getLogger(__name__)


class Trainer:
    """Trains ``task``'s model, which ``learner`` holds; on every rank alike.

    Args:
        max_nonfinite_steps: steps in a row without a finite loss and gradient that end the run.
        seed: what dropout is drawn with.
        config: the run's configuration as plain values, which checkpoints carry; nothing here reads it.
    """

    def __init__(
        self,
        task: Task,
        learner: Learner,
        layout: BatchLayout,
        ranks: Ranks,
        *,
        schedule: Schedule,
        intervals: Intervals,
        selection: Selection,
        max_nonfinite_steps: int,
        seed: int,
        config: dict[str, Any],
    ) -> None:
        self.task, self.learner, self.layout, self.ranks = task, learner, layout, ranks
        self._schedule, self._intervals, self._selection = schedule, intervals, selection
        self._max_nonfinite_steps, self._seed, self._config = max_nonfinite_steps, seed, config
        self.total_steps = intervals.total_steps
        self.state = RunState()
        self.stopping = False
        """Whether a rank has been asked to stop, as all ranks know."""
        self._cure_of_skips = cure_of_skips(schedule.lr, learner.precision.name)
        self._throughput = Throughput()
        self._wait_hint = WaitHint(task.workers.meter, task.workers.workers)
        self._save_wanted = False
        """Whether rank 0's clock has asked for a checkpoint, as all ranks know."""
        self._save_asked = False
        self._unread: Callable[[], StepResult] | None = None

    # -- the loop --------------------------------------------------------------------------------------------------

    def fit(self, recorder: Recorder) -> bool:
        """Trains to the end. Returns False if a stop request ended it early, after saving.

        Raises:
            NonFiniteError: too many steps in a row were skipped, or all that the run has.
        """
        batches, state, intervals = self.batches(), self.state, self._intervals
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
                if state.skipped_in_row and self.ranks.is_main:
                    log.warning("%s; %s", skipped_end(state.step, state.skipped_in_row), self._cure_of_skips)
                return True
            self._save_asked = recorder.minutes_due(intervals.checkpoint.every_minutes)
            self.train_step(batches)
            recorder.stepped(state, self.epoch)
            if intervals.record_due(state.step):
                self._record(recorder)
            state.evaluation_owed = intervals.evaluation_due(state.step)
            if state.evaluation_owed:
                self.settle()
            if self.stopping:  # a stop has a deadline, an evaluation can wait
                self.save(recorder)
                return False
            if not state.evaluation_owed and (intervals.save_due(state.step) or self._save_wanted):
                self.save(recorder)

    def train_step(self, batches: DeviceBatches) -> None:
        """Queues one optimizer step on the device.

        A step whose loss or gradient is not finite changes nothing but the position in the data. The device finds that
        out by itself, so that it always has work: the host reads a step's numbers when it has queued the passes of the
        next one, see :meth:`settle`.
        """
        state, begin, waited = self.state, time.perf_counter(), batches.wait_seconds
        self.learner.unfreeze(state.step)
        sums, samples = self._accumulate_gradients(batches)
        totals, heartbeat = sums.packed(bool(self.ranks.stop), self._save_asked), self.ranks.heartbeat
        heartbeat.at("reduce")
        self.ranks.sum_(totals)
        packed = torch.cat([totals, self.learner.clip().reshape(1)])
        skipped = 1.0 - packed.isfinite().all().float()
        heartbeat.at("data")
        batches.prefetch()  # the device is given its next batch before the host waits for the last step's numbers
        heartbeat.at("update")
        self.settle()  # the rate of this step depends on whether the last one was skipped
        self.learner.update(self.rate(), state.updates + 1, skipped)
        state.step += 1
        self._unread = partial(StepResult.read, state.step, samples, sums.names, DeviceNumbers(packed))
        self._throughput.add(samples, time.perf_counter() - begin, batches.wait_seconds - waited)

    def _accumulate_gradients(self, batches: DeviceBatches) -> tuple[SampleSums, int]:
        """Makes the forward and backward passes of one optimizer step.

        Returns this rank's sums over samples of each metric, and the number of samples of the step over all ranks.
        """
        self.learner.freezing.train_mode()
        step, heartbeat, accumulation = self.state.step, self.ranks.heartbeat, self.layout.accumulation
        sums = SampleSums(self.ranks.device)
        for micro_step in range(accumulation):
            heartbeat.at("data", step)
            batch = batches.next()
            heartbeat.at("forward")
            torch.manual_seed(derive(self._seed, "dropout", step, micro_step, self.ranks.rank))
            means = self.learner.accumulate(self.task.training_step, batch, last=micro_step == accumulation - 1)
            sums.add(means, batch.slot.num_samples)
        return sums, batch.slot.step_samples

    def settle(self) -> None:
        """Reads what the last step came to and counts it, if that has not been done.

        To be called, by all ranks alike, before anything but :meth:`train_step` uses the run's state.
        """
        if self._unread is None:
            return
        result, state, self._unread = self._unread(), self.state, None
        self.stopping = self.stopping or result.stop_asked
        self._save_wanted = self._save_wanted or result.save_asked
        if result.finite:
            state.updates += 1
            state.skipped_in_row = 0
            state.window.add(result.sums, result.samples, result.grad_norm)
        else:
            state.skipped_in_row += 1
            result.warn_of_skip(state.skipped_in_row, self._max_nonfinite_steps, self._cure_of_skips)

    def _require_updates(self) -> None:
        """Refuses to call a run finished whose weights are those that it began with: raises NonFiniteError."""
        self.settle()
        if self.state.step and not self.state.updates:
            fp16 = self.learner.precision.name == "fp16"
            longer = ", or make more steps: fp16 skips some until its scale fits" if fp16 else ""
            raise NonFiniteError(
                f"nothing was trained: all {self.state.step} steps of the run were skipped, since each had a loss or "
                f"gradient that is not finite; {self._cure_of_skips}{longer}"
            )

    def batches(self) -> DeviceBatches:
        """Returns the micro-batches of this rank from the current step to the end of the run."""
        sampler = MicroBatchSampler(
            self.task.train_order, self.layout, self.ranks.rank, self.state.step, self.total_steps
        )
        return DeviceBatches(TrainLoader(self.task.train_data, sampler, self.task.workers), self.ranks.device)

    @property
    def epoch(self) -> float:
        """Returns the epochs done, with the part of the current one."""
        return self.state.step / self.layout.steps_per_epoch

    def rate(self) -> float:
        """Returns the base learning rate of the coming update."""
        return self._schedule.rate(self.state.updates, self.state.plateau.scale)

    # -- what happens between steps --------------------------------------------------------------------------------

    def _record(self, recorder: Recorder) -> None:
        """Writes the training record: means over the steps since the last one."""
        self.settle()
        require_readable(self.task.workers.patience, self.task.workers.troubles, self.ranks)
        metrics = {
            **self.state.window.means(),
            "lr": self.learner.rate,
            "skipped_steps": self.state.skipped,
            **self._throughput.metrics(self.ranks.world_size),
            "memory_gb": take_peak_gb(self.ranks.device),
        }
        recorder.trained(self.state, self.epoch, metrics)
        if self.ranks.is_main:
            self._wait_hint.record(metrics.get("data_wait_fraction", 0.0))
        self.state.window, self._throughput = Window(), Throughput()

    def _evaluate(self, recorder: Recorder) -> bool:
        """Saves, evaluates, acts on the result and saves again.

        An evaluation that fails does not cost what was trained: the first of the two checkpoints begins with it.

        Returns False if a stop request interrupted it.
        """
        state, scale = self.state, self.state.plateau.scale
        require_readable(self.task.workers.patience, self.task.workers.troubles, self.ranks)
        self.save(recorder)
        try:
            evaluated = self.evaluate("val")
        except EvaluationStopped:
            return False
        may_stop = not self.learner.freezing.unfreezes_before(self.total_steps)
        best = judge(evaluated, self._selection, state, self.epoch, may_stop)
        if state.plateau.scale != scale:
            log.info("no better %s: the rate is lowered to %.3g", self._selection.metric, self.rate())
        recorder.evaluated(state, self.epoch, "val", evaluated.metrics)
        if evaluated.write is not None:
            recorder.write(state, "val", evaluated.write)
        if state.stopped_early:
            text = "stopping early: %d evaluations in a row without better %s"
            log.info(text, state.patience.stale, self._selection.metric)
        if best:
            recorder.show(state, "val", evaluated.draw)
            recorder.trace(state, "val", evaluated.curves)
        self.save(recorder, best=best)
        return True

    def evaluate(self, split: str) -> Evaluated:
        """Returns what is measured on ``split`` of the weights that ``evaluation.weights`` names.

        Where there is a second moving average, its metrics are beside these, named ``loss_second_ema`` and so on.
        """
        self.ranks.heartbeat.at("evaluate")
        learner = self.learner
        with uncompiled():
            evaluated = evaluate(self.task, learner.evaluated, split, learner.precision, self.ranks)
            if learner.second_ema is None:
                return evaluated
            other = evaluate(self.task, learner.second_ema.module, split, learner.precision, self.ranks)
        second = {f"{name}{SECOND}": value for name, value in other.metrics.items()}
        return replace(evaluated, metrics={**evaluated.metrics, **second})

    # -- state -----------------------------------------------------------------------------------------------------

    def save(self, recorder: Recorder, best: bool = False) -> None:
        """Has rank 0 write a checkpoint; to be called on every rank."""
        self.ranks.heartbeat.at("save")
        self.settle()
        content = self.state_dict()  # of a sharded optimizer state every rank gives its part
        if self.ranks.is_main:
            recorder.save(self.state, content, best)
        self._save_wanted = False

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that the next step reads, as plain tensors and plain types under the bare model's names.

        With a sharded optimizer state it is to be called on every rank, and is whole on rank 0.
        """
        self.settle()
        return {
            "format": store.FORMAT,
            "task": self.task.name,
            "config": self._config,
            "metadata": self.task.metadata(),
            **self.learner.state_dict(),
            "epoch": self.epoch,
            "run": self.state.state_dict(),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continues from what :meth:`state_dict` returned.

        Raises:
            UserError: an entry is missing, surplus, or does not fit the configured model; it is named.
        """
        expected = set(self.state_dict())
        if expected != set(saved):
            missing, surplus = sorted(expected - set(saved)), sorted(set(saved) - expected)
            raise UserError(f"checkpoint: missing entries {missing}, surplus entries {surplus}")
        try:
            state = RunState.from_state(saved["run"])
            self.learner.load_state_dict(saved, state.step)
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(f"checkpoint does not fit this configuration: {error}") from None
        self.state = state
        self.state.stopped_early = self._selection.out_of_patience(state.patience)
