"""The configuration with which a trained model is used: the run's own, but for what the command line may change."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from engine.config.load import differences, is_below, load_recorded
from engine.config.run import RunConfig
from engine.errors import UserError
from engine.run_folder.paths import RunDir

C = TypeVar("C", bound=RunConfig)

IDLE = (
    "data.workers",
    "data.read_threads",
    "data.prefetch",
    "data.read_timeout_seconds",
    "data.max_unreadable",
    "data.stage",
    "data.multiprocessing_context",
    "evaluation.batch_size",
    "distributed",
)
"""Settings that may be changed to use a trained model and do not change what it says (but for rounding)."""

COUNTING = (
    "data",
    "evaluation.batch_size",
    "evaluation.weights",
    "training.precision",
    "training.channels_last",
    "distributed",
)
"""Settings that matter where a trained model is used, besides :attr:`RunConfig.used_when_trained`."""


def matters(schema: type[RunConfig], key: str) -> bool:
    """Returns whether a setting has an effect where a trained model is used."""
    return is_below(key, (*COUNTING, *schema.used_when_trained)) and not is_below(key, schema.only_to_train)


def used_config(path: Path, schema: type[C], overrides: Sequence[str] = ()) -> tuple[C, tuple[str, ...]]:
    """Reads the configuration of the experiment in the folder ``path``, with changes.

    Args:
        overrides: The user's changes.

    Returns:
        The configuration, and those of the user's changes that can alter what the model says, as ``key=value``.

    Raises:
        UserError: there is no such folder; a change is wrong; or it cannot matter, so that whoever made it expects
            something else than what is done.
    """
    file = RunDir(path.absolute()).config
    if not file.is_file():
        raise UserError(f"--experiment: {path} is no experiment folder (it has no config.yaml)")
    # The checkpoint holds all weights; the file that training started from may be gone.
    own = ["finetune.weights=null"]
    config = load_recorded(schema, file, [*own, *overrides], trained=True)
    changes = differences(load_recorded(schema, file, own, trained=True), config)
    idle = ", ".join(key for key, _, _ in changes if not matters(schema, key))
    if idle:
        every = (*COUNTING, *schema.used_when_trained)
        counting = ", ".join(key for key in every if matters(schema, key))
        parts = [key for key in schema.only_to_train if key not in every]
        less = f" (but not {', '.join(parts)})" if parts else ""
        raise UserError(f"command line: {idle}: cannot matter for a trained model; what can: {counting}{less}")
    shown = {key: new if isinstance(new, str) else json.dumps(new) for key, _, new in changes}
    return config, tuple(f"{key}={value}" for key, value in shown.items() if not is_below(key, IDLE))


def is_exported(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path names an exported model, which holds its settings, and no experiment's folder."""
    return Path(path).suffix.lower() == ".onnx"


def require_exported(path: Path, overrides: Sequence[str], checkpoint: str = "best") -> None:
    """Checks what a command line says of an exported model.

    Raises:
        UserError: there is no such file, or there are settings or a checkpoint, of which it takes none.
    """
    if not path.is_file():
        raise UserError(f"--experiment: there is no file {path}")
    if checkpoint != "best":
        raise UserError(f"--checkpoint {checkpoint}: {path.name} holds its weights; export it anew with others")
    if overrides:
        raise UserError(f"command line: {overrides[0]}: {path.name} holds its settings; export it anew with others")
