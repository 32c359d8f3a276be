"""Which stages of a model are trained at which step: head first, then more and more of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from engine.config.training import ALL_STAGES, FinetuneConfig, nothing_new
from engine.errors import UserError
from engine.model.stages import HEAD, stages

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phase:
    """From ``step`` on, counted from 0, ``stages`` are trained as well."""

    step: int
    stages: tuple[str, ...]


def plan_phases(unfreeze: Mapping[float, Sequence[str]], known: Sequence[str], steps_per_epoch: int) -> list[Phase]:
    """Turns epochs into steps, once.

    Args:
        unfreeze: the stages to begin with at each epoch; ``all`` stands for all of them.
        known: the stages that there are.

    Returns:
        The phases in order, each with the stages that are new in it.

    Raises:
        UserError: a stage does not exist, those that do are named; or an epoch brings nothing new.
    """
    phases: list[Phase] = []
    begun: set[str] = set()
    for epoch in sorted(unfreeze):
        for name in unfreeze[epoch]:
            if name not in (*known, ALL_STAGES):
                raise UserError(
                    f"finetune.unfreeze: epoch {epoch:g}: the model has no stage '{name}'; there are "
                    f"{', '.join(known)}, and '{ALL_STAGES}' for all of them"
                )
        wanted = known if ALL_STAGES in unfreeze[epoch] else unfreeze[epoch]
        if fresh := tuple(name for name in known if name in wanted and name not in begun):
            phases.append(Phase(round(epoch * steps_per_epoch), fresh))
            begun.update(fresh)
        else:
            raise UserError(f"finetune.unfreeze: epoch {epoch:g}: {nothing_new(unfreeze[epoch])}")
    return phases


class Freezing:
    """Freezes ``model`` but for what is trained from the first step on, and unfreezes the rest when it is due.

    Frozen parameters have no gradient, so that neither the optimizer nor its weight decay moves them. Batch norm is
    held in evaluation mode as ``finetune.freeze_batchnorm`` says: it normalises by its running statistics and leaves
    them alone. Dropout and stochastic depth of frozen stages stay on, as in timm and torchvision: they keep the layers
    above from relying on single features, and a stage does not change what it says when it begins to be trained.

    Nothing is stored: what is trained follows from the step.

    Raises:
        UserError: the configuration names a stage that the model does not have, or leaves nothing to train.
    """

    def __init__(self, model: nn.Module, config: FinetuneConfig, steps_per_epoch: int) -> None:
        self._model, self._config = model, config
        needs_stages = config.unfreeze is not None or config.freeze_batchnorm == "always"
        self._stages = stages(model) if needs_stages else {}
        self._trained = set(self._stages)
        self._to_come: list[Phase] = []
        if config.unfreeze is not None:
            self._to_come = plan_phases(config.unfreeze, list(self._stages), steps_per_epoch)
            self._trained.clear()
            self._trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
            for name in self._trainable:
                model.get_parameter(name).requires_grad_(False)
            while self.advance(0):
                pass
            if not any(parameter.requires_grad for parameter in model.parameters()):
                raise UserError(f"finetune.unfreeze: what begins at epoch 0 ({', '.join(self.trained)}) has no weights")
        self.held: Sequence[nn.Module] = self._batch_norm_to_hold()
        """The batch norm layers that stay in evaluation mode."""
        self._set_for: Sequence[nn.Module] | None = None

    @property
    def trained(self) -> list[str]:
        """Returns the stages in training, from the input to the classes."""
        return [name for name in self._stages if name in self._trained]

    def advance(self, step: int) -> bool:
        """Takes the next phase into training if it is due in optimizer step ``step``. Returns whether it was."""
        if not self._to_come or self._to_come[0].step > step:
            return False
        phase = self._to_come.pop(0)
        self._trained.update(phase.stages)
        keys = {key for name in phase.stages for key in self._stages[name]}
        for name in self._trainable:
            if name in keys:
                self._model.get_parameter(name).requires_grad_(True)
        self.held = self._batch_norm_to_hold()
        return True

    def later(self) -> list[nn.Parameter]:
        """Returns the parameters that are frozen still, and not for good."""
        keys = {key for phase in self._to_come for name in phase.stages for key in self._stages[name]}
        return [self._model.get_parameter(name) for name in keys.intersection(self._trainable)] if keys else []

    def unfreezes_before(self, end: int) -> bool:
        """Returns whether anything is still to be unfrozen in the steps before ``end``."""
        return any(phase.step < end for phase in self._to_come)

    def check_reached(self, total_steps: int) -> None:
        """Warns of what the run is too short for, of a head that it never trains, and of frozen random weights."""
        some_frozen = len(self._trained) < len(self._stages)
        if self._config.unfreeze is not None and self._config.weights is None and some_frozen:
            log.warning("finetune.unfreeze: what is frozen has random weights, since finetune.weights is null")
        begun = self._trained.union(*(phase.stages for phase in self._to_come))
        if HEAD in self._stages and HEAD not in begun:
            text = (
                "finetune.unfreeze: neither '%s' nor '%s' begins at any epoch: the classifier stays as it is at first"
            )
            log.warning(text, HEAD, ALL_STAGES)
        for phase in self._to_come:
            if phase.step >= total_steps:
                text = "finetune.unfreeze: %s would begin with step %d, but the run has %d: not trained"
                log.warning(text, ", ".join(phase.stages), phase.step, total_steps)

    def report(self) -> None:
        """Logs what is trained now."""
        parameters = list(self._model.parameters())
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        total = sum(p.numel() for p in parameters)
        log.info("training %s: %s of %s parameters", ", ".join(self.trained), f"{trained:,}", f"{total:,}")

    def train_mode(self) -> None:
        """Puts the model into training mode, but for the batch norm layers that are held.

        To be called before each step; it visits the layers only after an evaluation or when another phase has begun.
        """
        if self._model.training and self._set_for is self.held:
            return
        self._model.train()
        for module in self.held:
            module.eval()
        self._set_for = self.held

    def _batch_norm_to_hold(self) -> list[nn.Module]:
        when = self._config.freeze_batchnorm
        if when == "never":
            return []
        frozen = [name for name in self._stages if name not in self._trained or (when == "always" and name != HEAD)]
        paths = {key.rpartition(".")[0] for name in frozen for key in self._stages[name]}
        return [m for path, m in self._model.named_modules() if path in paths and isinstance(m, _BatchNorm)]
