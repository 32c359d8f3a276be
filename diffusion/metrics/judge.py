"""The classifier that judges generated images: an experiment of any task that has one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from engine.checkpoints import store
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.run_folder.paths import RunDir
from engine.task.experiment import Experiment, open_experiment
from engine.task.inference import ClassifierInference
from engine.task.spec import find_spec


def open_judge(folder: Path, ranks: Ranks, key: str) -> ClassifierInference:
    """Builds the classifier of the experiment `folder` from its best checkpoint, on the device of the ranks.

    Which task has trained it stands in the checkpoint, and the engine finds that task by its name: no task imports
    another, and those that lie outside of this project can judge as well.

    Args:
        folder: The experiment's.
        ranks: Every one calls this; rank 0 reads the files.
        key: What of the configuration names the folder, for messages.

    Raises:
        UserError: it is no experiment, has no checkpoint, or is none of a classifier.
    """
    experiment = ranks.from_main(partial(_opened, folder, key))
    task = experiment.saved["task"]
    inference: Any = find_spec(task).inference(experiment, ranks)
    if not hasattr(inference, "features"):
        raise UserError(
            f"{key}: {folder} is an experiment of {task}, which tells no classes apart; name a classifier's"
        )
    return inference


def require_judge(folder: Path, key: str) -> Path:
    """Returns the checkpoint of the experiment `folder` that judges. Raises a UserError if there is none."""
    run = RunDir(folder.absolute())
    if not run.config.is_file():
        raise UserError(f"{key}: {folder} is no experiment folder (it has no config.yaml); name a trained classifier's")
    found = [file for file in (run.checkpoints / "best.pt", run.checkpoints / "last.pt") if file.is_file()]
    if not found:
        raise UserError(f"{key}: {folder} has no checkpoint yet; train it first, or name another experiment")
    return found[0]


def digest_of_judge(folder: Path, key: str) -> str:
    """Returns the SHA-256 of the checkpoint of the experiment `folder` that judges: the same wherever it lies."""
    with require_judge(folder, key).open("rb") as file:
        return store.digest(file)


def _opened(folder: Path, key: str) -> Experiment[Any]:
    task = store.read(require_judge(folder, key))["task"]
    return open_experiment(folder, "best", find_spec(task).schema())
