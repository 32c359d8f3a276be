"""A run's folder as the commands see it that use a trained model: evaluate, predict, export."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import nn

from engine import checkpoint
from engine.config import load_config
from engine.errors import UserError
from engine.run_dir import RunDir
from engine.settings import RunConfig

log = logging.getLogger(__name__)

C = TypeVar("C", bound=RunConfig)


@dataclass(frozen=True)
class Experiment(Generic[C]):
    """A folder with a configuration and a checkpoint of it."""

    folder: RunDir
    config: C
    checkpoint: Path
    saved: dict[str, Any]
    """The checkpoint's content, see :meth:`engine.trainer.Trainer.state_dict`."""

    def load_into(self, model: nn.Module) -> None:
        """Copies the weights that ``evaluation.weights`` names: the moving average, if there is one, by default.

        Raises:
            UserError: they do not fit the model.
        """
        use_ema = self.saved["ema"] is not None and self.config.evaluation.weights != "model"
        try:
            model.load_state_dict(self.saved["ema" if use_ema else "model"])
        except RuntimeError as error:
            raise UserError(f"{self.checkpoint} does not fit the configured model: {error}") from None


def open_experiment(path: Path, which: str, schema: type[C], overrides: Sequence[str] = ()) -> Experiment[C]:
    """Reads configuration and checkpoint of the folder ``path``.

    Args:
        which: ``best``, ``last`` or a file. Where the run has no best one yet, ``best`` is the last.

    Raises:
        UserError: the folder or the checkpoint is not there, or is damaged.
    """
    folder = RunDir(path.absolute())
    if not folder.config.is_file():
        raise UserError(f"--experiment: {path} is no experiment folder (it has no config.yaml)")
    # The checkpoint holds all weights; the file that training started from may be gone.
    config = load_config(schema, folder.config, ["finetune.weights=null", *overrides])
    file = folder.checkpoints / f"{which}.pt" if which in ("best", "last") else Path(which)
    if which == "best" and not file.exists():
        file = folder.checkpoints / "last.pt"
    if not file.exists():
        found = ", ".join(sorted(p.name for p in folder.checkpoints.glob("*.pt"))) or "none"
        raise UserError(f"--checkpoint: no file {file}; checkpoints in the experiment: {found}")
    fault = checkpoint.verify(file)
    if fault is not None and which in ("best", "last"):
        raise UserError(f"--checkpoint: {file} {fault}; name another one of {folder.checkpoints}")
    return Experiment(folder, config, file, checkpoint.read(file))
