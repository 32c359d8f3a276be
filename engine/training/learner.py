"""A model in training, with everything that changes its weights: gradients, optimizer, moving average, freezing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from engine.checkpoints.disk_space import estimate_checkpoint_bytes
from engine.config.optimization import OptimizerConfig
from engine.config.run import DistributedConfig
from engine.config.training import FinetuneConfig, TrainingConfig
from engine.data.loaders import MicroBatch
from engine.devices.precision import resolve_precision
from engine.distributed.connect import HANG_REPORT_SECONDS
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.model.batch_norm import BatchNormStatistics
from engine.model.freezing import Freezing
from engine.model.wrap import prepare_model, wrap_model
from engine.training.ema import MovingAverage
from engine.training.optimizer import (
    add_parameters,
    build_optimizer,
    load_named_state,
    named_state,
    set_rate,
    step_unless,
)
from engine.training.sharding import ShardedState, shard


class Learner:
    """Computes gradients of a model and steps with them; on every rank alike."""

    def __init__(
        self,
        model: nn.Module,
        training: TrainingConfig,
        optimizer: OptimizerConfig,
        finetune: FinetuneConfig,
        distributed: DistributedConfig,
        evaluated: Literal["auto", "model", "ema", "second_ema"],
        ranks: Ranks,
        steps_per_epoch: int,
    ) -> None:
        """Prepares ``model``, which lies on its device, and makes everything that belongs to it.

        Args:
            evaluated: ``evaluation.weights``.

        Raises:
            UserError: model, optimizer or device cannot do what the configuration asks for.
        """
        self.model, self._ranks = model, ranks
        self._training, self._optimizer, self._finetune = training, optimizer, finetune
        self.precision = resolve_precision(training.precision, ranks.device)
        self._prepared = prepare_model(model, training, distributed, ranks)
        self.freezing = Freezing(model, finetune, steps_per_epoch)
        self.optimizer = build_optimizer(model, optimizer, finetune)
        self._sharded: ShardedState | None = None
        if training.shard == "optimizer":
            timeout = timedelta(seconds=distributed.timeout_seconds + HANG_REPORT_SECONDS)
            self._sharded = shard(self.optimizer, optimizer, timeout, ranks)
        self._follow_freezing()
        self.scaler = self.precision.scaler()
        self.ema = self.second_ema = None
        if (ema := training.ema) is not None:
            self.ema = MovingAverage(model, ema)
            if ema.second_decay is not None:
                self.second_ema = MovingAverage(model, ema.model_copy(update={"decay": ema.second_decay}))
        self.evaluated = model if self.ema is None or evaluated == "model" else self.ema.module
        """What evaluations measure: the bare model or its moving average."""

    def unfreeze(self, step: int) -> None:
        """Takes into training what is due in optimizer step ``step``, or was due before it.

        Phase after phase, also where a resumed run jumps over several: the optimizer's groups are the same then.
        """
        changed = False
        while self.freezing.advance(step):
            add_parameters(self.optimizer, self.model, self._optimizer, self._finetune)
            if self._sharded is not None:
                self._sharded.assign()
            changed = True
        if changed:
            self._follow_freezing()

    def _follow_freezing(self) -> None:
        """Sets up all that depends on which parameters are trained."""
        if self._ranks.is_main and self.freezing.trained:
            self.freezing.report()
        self.network = wrap_model(self._prepared, self._training, self._ranks)
        if self._training.compile:
            self._ranks.heartbeat.warm_up()  # the coming step compiles anew
        self._parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self._batch_norm = BatchNormStatistics(self.model, self._ranks, self.freezing.held)

    # -- a step ----------------------------------------------------------------------------------------------------

    def accumulate(
        self,
        training_step: Callable[[nn.Module, dict[str, Tensor]], dict[str, Tensor]],
        batch: MicroBatch,
        last: bool,
    ) -> dict[str, Tensor]:
        """Adds the gradients of a micro-batch to those of its step; all but the ``last`` one's stay on their rank.

        Returns what ``training_step`` did: the mean of each metric over the micro-batch's samples.
        """
        alone = not last and isinstance(self.network, DistributedDataParallel)
        with self.network.no_sync() if alone else nullcontext():  # type: ignore[operator]
            with self.precision.autocast():
                results = training_step(self.network, batch.data)
            self._ranks.heartbeat.at("backward")
            # DDP averages over ranks, so the mean over all samples needs the factor `world_size`.
            self.scaler.scale(results["loss"] * (batch.slot.weight * self._ranks.world_size)).backward()
        return results

    def clip(self) -> Tensor:
        """Clips the gradient as configured. Returns its 2-norm before, a scalar on the device."""
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients, foreach=True)
        limit = self._training.clip_grad_norm
        if limit is not None:
            nn.utils.clip_grads_with_norm_(self._parameters, limit, norm, foreach=True)
        return norm

    def update(self, rate: float, number: int, skipped: Tensor) -> None:
        """Makes the optimizer step with the accumulated gradients, which are gone then, and what follows from it.

        Args:
            rate: base learning rate.
            number: of this update, counted from 1.
            skipped: 0-dim, on the device: 1 if nothing is to change, else 0.
        """
        set_rate(self.optimizer, rate)
        step_unless(skipped, self.optimizer)
        self._batch_norm.settle(skipped)
        for average in self._averages.values():
            average.follow(number, skipped)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    @property
    def rate(self) -> float:
        """Returns the learning rate of the last step: the head's, where rates differ."""
        return max(group["lr"] for group in self.optimizer.param_groups)

    # -- state -----------------------------------------------------------------------------------------------------

    def checkpoint_bytes(self) -> int:
        """Returns the most that a checkpoint takes on disk."""
        averages = [average.module for average in self._averages.values()]
        return estimate_checkpoint_bytes([self.model, *averages], self.optimizer, self.freezing.later())

    @property
    def _averages(self) -> dict[str, MovingAverage]:
        """Returns the moving averages by their names in a checkpoint."""
        averages = {"ema": self.ema, "second_ema": self.second_ema}
        return {name: average for name, average in averages.items() if average is not None}

    def state_dict(self) -> dict[str, Any]:
        """Returns plain tensors and plain types under the bare model's names.

        With a sharded optimizer state it is to be called on every rank, and is whole on rank 0.
        """
        state = named_state(self.optimizer, self.model)
        return {
            "model": self.model.state_dict(),
            "ema": None,
            **{name: average.module.state_dict() for name, average in self._averages.items()},
            "optimizer": state if self._sharded is None else self._sharded.gather(state),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, saved: dict[str, Any], step: int) -> None:
        """Continues from what :meth:`state_dict` returned after ``step`` optimizer steps.

        Raises:
            UserError: there is a moving average in one of checkpoint and configuration alone.
            KeyError, RuntimeError, ValueError: an entry does not fit the model or the optimizer.
        """
        if (saved["ema"] is None) != (self.ema is None):
            raise UserError("checkpoint: training.ema is set in one of checkpoint and configuration, but not in both")
        self.model.load_state_dict(saved["model"])
        for name, average in self._averages.items():
            average.module.load_state_dict(saved[name])
        self.unfreeze(step - 1)  # what is due in the coming step was not when this was saved
        optimizer = saved["optimizer"]
        if self._sharded is not None:
            optimizer = self._sharded.own_part(optimizer, self.model)
        load_named_state(self.optimizer, self.model, optimizer)
        self.scaler.load_state_dict(saved["scaler"])
        self._batch_norm.reload()
