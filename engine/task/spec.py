"""A task as engine and tools know it: its parts by name, each imported when it is first used."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import UserError

if TYPE_CHECKING:
    from argparse import Namespace

    from engine.config.run import RunConfig
    from engine.distributed.ranks import Ranks
    from engine.exported.deployed import DeployedModel
    from engine.exported.exportable import Exportable
    from engine.task.experiment import Experiment
    from engine.task.inference import ImageInference, Inference, Prediction
    from engine.task.metrics import Metrics
    from engine.task.packing import Packable
    from engine.task.preflight import Checked
    from engine.task.task import Task

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Later:
    """A class or function of another module, which is imported when this is called in its place."""

    part: str
    """``module:name``."""

    def load(self) -> Any:
        """Imports the part and returns it."""
        module, _, name = self.part.partition(":")
        return getattr(importlib.import_module(module), name)

    def __call__(self, *arguments: Any) -> Any:
        return self.load()(*arguments)


@dataclass(frozen=True)
class TaskSpec:
    """Everything that engine and tools know of a task: ``SPEC`` in its package's module ``spec``.

    Reading it imports none of the parts, so that neither torch nor timm are there before they are needed.
    """

    name: str
    """The package of its commands: ``python -m NAME.train``."""
    schema: Callable[[], type[RunConfig]]
    """Imports the type of the configuration, without torch and timm."""
    task: Callable[[Any, Ranks], Task]
    """Builds what is trained from a configuration, its model on the device of the ranks."""
    inference: Callable[[Experiment[Any], Ranks], Inference]
    """Builds a trained model from its experiment."""
    metrics: Callable[[Any], Metrics]
    """Returns what a run of a configuration measures; without torch."""
    inputs: Callable[[Any], object] = lambda config: None
    """Raises a UserError if files or folders that a configuration names are not there; looks into none."""
    preflight: Callable[[Any], Iterable[Checked]] = lambda config: ()
    """Yields what would stop a run in its settings and data; may end with a UserError."""
    packable: Callable[[Any], Mapping[str, Packable]] | None = None
    """Returns the splits whose image files `tools.pack` packs."""
    prediction: Callable[[Namespace], Prediction] | None = None
    """What ``python -m NAME.predict`` does with answers for images; None: there is no such command."""
    exportable: Callable[[Any, str, bool], Exportable] | None = None
    """Makes of a trained model what other runtimes take: see :data:`engine.exported.exportable.Runtime`; True: with the
    network's own output in place of what is made of it. None: there is no such thing."""
    deployed: Callable[[DeployedModel], ImageInference] | None = None
    """Makes of an exported model one that answers for images."""


def known_tasks() -> list[str]:
    """Returns the names of the tasks beside the engine."""
    return sorted(path.parent.name for path in ROOT.glob("*/spec.py"))


def find_spec(name: str) -> TaskSpec:
    """Imports the spec of ``name``: a task beside the engine, or any package, with dots, that has a module ``spec``.

    Raises:
        UserError: there is no such package.
    """
    module = f"{name}.spec"
    try:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ModuleNotFoundError(name=name)
        spec: TaskSpec = importlib.import_module(module).SPEC
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # it is there, and needs something else that is not
        near = difflib.get_close_matches(name, known_tasks(), 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        known = ", ".join(known_tasks())
        raise UserError(
            f"--task: there is no '{name}'; there are {known}, and PACKAGE of your own with PACKAGE/spec.py{hint}"
        ) from None
    assert spec.name == name, f"{module}.SPEC describes {spec.name}"
    return spec
