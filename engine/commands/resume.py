"""Which folder a start belongs to: a new one, the one named, or the unfinished one of the same run."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.commands.arguments import TrainArguments
from engine.config.load import differences, is_below, load_config, load_recorded, older_settings
from engine.config.run import FREE, RunConfig
from engine.distributed.slurm import noted_folder, restart_count
from engine.errors import UserError
from engine.files import shown
from engine.run_folder.paths import RunDir
from engine.run_folder.status import read_status
from engine.task.moved_data import found_again, is_move
from engine.text import shortened

log = logging.getLogger(__name__)

RECORDED = (
    "training.epochs",
    "training.steps",
    "training.micro_batch_size",
    "training.accumulation",
    "training.compile",
    "optimizer.lr",
    "schedule",
    "data.max_unreadable",
    "evaluation.early_stopping",
)
"""Settings that a resumed run may change on purpose: its length, its rates, when it is stopped early, which faults of
its data it may have, and how a batch is cut into parts and compiled, which changes rounding and dropout."""


CLASSES = ("classes", "category_ids")
"""What a task's metadata say of its classes."""
MOST_SHOWN = 100
"""Characters of a value in a message."""

MOST_CHANGES = 8
"""Changes that a message names."""


@dataclass(frozen=True)
class Plan:
    """The plan of a start: configuration, folder, changes."""

    config: RunConfig
    folder: RunDir | None
    """The folder to go on in; None: a new one."""
    changes: Sequence[str] = ()
    """Settings that differ from those the folder was started with, as ``key: old -> new``."""
    finished: str = ""
    """What to tell where the folder's run has finished and nothing more is asked for."""


def plan(schema: type[RunConfig], arguments: TrainArguments) -> Plan:
    """Decides what ``--config``, ``--resume`` and the overrides mean together.

    Raises:
        UserError: the folder is not there, several match, or a setting was changed that would change the run silently.
    """
    config = requested_config(schema, arguments)
    root = config.experiment.root
    # A job or array task that Slurm has restarted goes on in its folder untold. A first start only does if it is to
    # find its folder by itself: a job may train the same twice.
    restarted = arguments.resume is None and restart_count() > 0 and not arguments.dry_run
    folder = noted_folder(root, arguments.request) if restarted or arguments.resume == "auto" else None
    if folder is not None:  # the job goes on as it began, even if its configuration file was edited since
        if not folder.config.is_file():  # it was killed before it had written anything
            return Plan(config, folder)
        kept = found_again(load_recorded(schema, folder.config, arguments.overrides), config)
        if kept != config:
            log.warning("%s has changed since this job began; the job goes on as it began", arguments.config)
        config = kept
    elif arguments.resume == "auto":
        matching = list(unfinished(config, schema))
        if len(matching) > 1:
            names = " or ".join(f"--resume {shown(found.path)}" for found in matching)
            raise UserError(
                f"--resume auto: several unfinished runs have this configuration; name one of them: {names}"
            )
        if not matching:
            log.info("--resume auto: no unfinished run below %s has this configuration; starting a new one", root)
        return Plan(config, matching[0] if matching else None)
    elif arguments.resume is None:
        return Plan(config, None)
    else:
        folder = RunDir(Path(arguments.resume).absolute())
    before = load_recorded(schema, folder.config)
    if older := older_settings(schema, folder.config):
        text = "%s was begun by an earlier version: it goes on with %s, and its images are augmented by other code, "
        log.warning(text + "which gives other roundings from here on", folder.path, ", ".join(older))
    changes = allowed_changes(before.model_dump(mode="json"), config, f"--resume {shown(folder.path)}")
    status = read_status(folder.status) or {}
    moves = [_recorded(change) for change in differences(before, config) if is_move(config, *change)]
    if status.get("state") != "finished" or changes != moves:
        return Plan(config, folder, changes)
    length = "epochs" if config.training.steps is None else "steps"
    told = f"has finished; ask for more with training.{length}=N"
    if status.get("stopped_early"):
        told = "was stopped early; to go on, raise evaluation.early_stopping.patience"
    return Plan(config, folder, finished=f"{folder.path} {told}")


def requested_config(schema: type[RunConfig], arguments: TrainArguments) -> RunConfig:
    """Loads the configuration of ``--config``, else of the folder to resume, with the command line's settings.

    Raises:
        UserError: it is wrong, or there is no such file or folder.
    """
    path = arguments.config
    if arguments.resume is not None and arguments.resume != "auto":
        folder = RunDir(Path(arguments.resume).absolute())
        if not folder.config.is_file():
            raise UserError(f"--resume: {folder.path} is no experiment folder (it has no config.yaml)")
        if path is None:
            return load_recorded(schema, folder.config, arguments.overrides, slow_checks=arguments.print_config is None)
    assert path is not None, "the command line gives one or the other"
    return load_config(schema, path, arguments.overrides, slow_checks=arguments.print_config is None)


def allowed_changes(before: Mapping[str, Any], config: RunConfig, what: str) -> list[str]:
    """Returns the changes from a configuration to another that a resumed run has to record, as ``key: old -> new``.

    Args:
        before: the old one as plain values.
        what: what is resumed, for the message.

    Raises:
        UserError: settings were changed that would change the run silently; they are named. Whether data that were
            moved are the same is not known here, see :func:`engine.task.moved_data.check_same_data`.
    """
    changes = differences(before, config.model_dump(mode="json"))
    refused = [change for change in changes if not (is_below(change[0], FREE + RECORDED) or is_move(config, *change))]
    if refused:
        shown = "; ".join(f"{key}: {_cut(repr(old))} -> {_cut(repr(new))}" for key, old, new in refused[:MOST_CHANGES])
        if len(refused) > MOST_CHANGES:
            shown += f"; and {len(refused) - MOST_CHANGES} more"
        raise UserError(f"{what}: these would change the run: {shown}; start a new run instead")
    return [_recorded(change) for change in changes if is_below(change[0], RECORDED) or is_move(config, *change)]


def _recorded(change: tuple[str, Any, Any]) -> str:
    key, old, new = change
    return f"{key}: {old!r} -> {new!r}"


def require_same_classes(saved: Mapping[str, Any], now: Mapping[str, Any], what: str) -> None:
    """Makes sure that a task's data have the classes that they had in the checkpoint (both: ``Task.metadata``).

    Raises:
        UserError: they have others, or in another order: a number would mean something else from here on.
    """
    for key in CLASSES:
        old, new = saved.get(key), now.get(key)
        if old is not None and old != new:
            raise UserError(
                f"{what}: the classes of the data have changed since the checkpoint: {_cut(old)} -> {_cut(new)}; put "
                "them back, or start a new run from its weights (finetune.weights)"
            )


def warn_of_changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Warns of what a task says of its data and model otherwise than in the checkpoint (both: ``Task.metadata``)."""
    for key, old, new in differences(saved, now):
        if old is not None:  # which older checkpoints do not say
            log.warning("the data have changed since the checkpoint: %s: %s -> %s", key, _cut(old), _cut(new))


def _cut(value: Any) -> str:
    return shortened(str(value), MOST_SHOWN)


def unfinished(config: RunConfig, schema: type[RunConfig]) -> Iterable[RunDir]:
    """Finds the folders below ``experiment.root`` that have not finished and were started with this configuration."""
    for path in sorted(Path(config.experiment.root).glob("experiment_*")):
        folder = RunDir(path)
        try:
            state = (read_status(folder.status) or {}).get("state")
            if state == "finished" or load_recorded(schema, folder.config) != config:
                continue
        except UserError:  # not ours to judge: an old or a foreign folder
            continue
        yield folder
