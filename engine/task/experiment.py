"""A run's folder as the commands see it that use a trained model: evaluate, predict, export."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import nn

from engine.checkpoints import store
from engine.config.load import is_below
from engine.config.run import RunConfig
from engine.errors import UserError
from engine.files import shown
from engine.model.pretrained import misfit
from engine.run_folder.paths import RunDir
from engine.run_folder.used_config import used_config

log = logging.getLogger(__name__)

C = TypeVar("C", bound=RunConfig)


@dataclass(frozen=True)
class Experiment(Generic[C]):
    """A folder with a configuration and a checkpoint of it."""

    folder: RunDir
    config: C
    checkpoint: Path
    saved: dict[str, Any]
    """The checkpoint's content but the optimizer's state, see :meth:`engine.training.trainer.Trainer.state_dict`."""
    changes: tuple[str, ...] = ()
    """Settings that differ from the run's own and can change what the model says, as ``key=value``."""

    @property
    def elsewhere(self) -> bool:
        """Returns whether the user has named other places of the data than the run had."""
        return any(is_below(change.partition("=")[0], self.config.locations) for change in self.changes)

    @property
    def weights(self) -> str:
        """Returns which of the checkpoint's weights ``evaluation.weights`` means: ``model``, ``ema`` or another."""
        wanted = self.config.evaluation.weights
        if wanted == "auto" or (wanted == "ema" and self.saved["ema"] is None):
            return "model" if self.saved["ema"] is None else "ema"
        return wanted

    def load_into(self, model: nn.Module) -> None:
        """Copies the weights that ``evaluation.weights`` names: the moving average, if there is one, by default.

        Raises:
            UserError: they are not there, or do not fit the model.
        """
        wanted = self.weights
        if wanted not in self.saved:
            raise UserError(f"evaluation.weights: {self.checkpoint} has no {wanted}; use ema or model")
        state = self.saved[wanted]
        if fault := misfit(model.state_dict(), state):
            raise UserError(f"{self.checkpoint} does not fit the configured model: {fault}")
        model.load_state_dict(state)


def open_experiment(path: Path, which: str, schema: type[C], overrides: Sequence[str] = ()) -> Experiment[C]:
    """Reads configuration and checkpoint of the folder ``path``.

    Args:
        which: ``best``, ``last``, a file, or the name of one in the experiment. Where the run has no best one yet,
            ``best`` is the last.
        overrides: The user's changes to the configuration.

    Raises:
        UserError: the folder or the checkpoint is not there, or is damaged; or ``overrides`` change settings that
            cannot matter, so that whoever gave them expects something else than what is done.
    """
    folder = RunDir(path.absolute())
    config, changes = used_config(path, schema, overrides)
    file = folder.checkpoints / (f"{which}.pt" if which in ("best", "last") else which)
    if which not in ("best", "last") and (Path(which).exists() or not file.exists()):
        file = Path(which)
    if which == "best" and not file.exists():
        file = folder.checkpoints / "last.pt"
        if file.exists():
            log.warning("%s has no best checkpoint, so its last is taken", shown(folder.path))
    if not file.is_file():
        found = ", ".join(sorted(p.name for p in folder.checkpoints.glob("*.pt"))) or "none"
        raise UserError(f"--checkpoint: no file {file}; checkpoints in the experiment: {found}")
    fault = store.verify(file)
    if fault is not None and which in ("best", "last"):
        raise UserError(f"--checkpoint: {file} {fault}; name another one of {folder.checkpoints}")
    saved = store.read(file)
    saved.pop("optimizer", None)  # most of the bytes, and of use for nothing but going on with the training
    return Experiment(folder, config, file, saved, changes)
