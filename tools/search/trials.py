"""The trials of a search in Optuna's journal: a file that works on shared file systems and needs no database.

Everything that a search knows lies there. One process writes it at a time, and each entry is one line, so that a kill
at any moment leaves a search that goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from engine.errors import UserError
from engine.files import shown
from tools.search.space import SearchSpace, quiet

optuna.logging.set_verbosity(optuna.logging.ERROR)

NAME = "search"
"""What the one study of a journal is called; Hyperband's brackets depend on it."""
JOURNAL = "journal.log"
LOCK = f"{JOURNAL}.lock"
"""Optuna's, held for each entry."""
_DIRECTIONS = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}


@dataclass(frozen=True)
class Trials:
    """A study, with the calls that a search makes."""

    storage: JournalStorage
    study: optuna.Study
    space: SearchSpace

    @staticmethod
    def open(folder: Path, space: SearchSpace, direction: Literal["min", "max"], write: bool = True) -> Trials:
        """Opens the journal in ``folder``, or begins one. ``write``: whether this is the one process that writes it.

        Raises:
            UserError: the journal is damaged; or it is only to be read, and nothing is in it yet.
        """
        file = folder / JOURNAL
        if write:
            _cut_torn_line(file)
            (folder / LOCK).unlink(missing_ok=True)  # of a writer that was killed: Optuna would wait for half a minute
        _check_lines(file)
        storage = JournalStorage(JournalFileBackend(str(file)))
        if not storage.get_all_studies():
            if file.stat().st_size:
                raise UserError(f"{shown(file)}: its beginning is missing; --name NAME begins another search")
            if not write:
                raise UserError(f"{shown(file)}: nothing is in it yet")
            storage.create_new_study([_DIRECTIONS[direction]], NAME)
        study = optuna.load_study(storage=storage, study_name=NAME, pruner=space.build_pruner())
        return Trials(storage, study, space)

    def all(self) -> list[FrozenTrial]:
        """Returns the trials, by number."""
        return self.study.get_trials(deepcopy=False)

    def running(self) -> list[FrozenTrial]:
        """Returns those that have not ended."""
        return [trial for trial in self.all() if trial.state == TrialState.RUNNING]

    def ask(self) -> None:
        """Begins the next trial with what the sampler proposes.

        It proposes in a copy, and the trial is written here whole: a kill in between leaves none.
        """
        copied, number = InMemoryStorage(), len(self.all())
        with quiet():
            optuna.copy_study(from_study_name=NAME, from_storage=self.storage, to_storage=copied, to_study_name=NAME)
            sampler = self.space.build_sampler(number)
            copy = optuna.load_study(study_name=NAME, storage=copied, sampler=sampler, pruner=self.study.pruner)
            try:
                copy.ask(self.space.distributions())
            except ModuleNotFoundError as error:
                needs = f"{self.space.sampler['name']} needs a package that is not there: {error.name}"
                raise UserError(f"sampler: {needs}; pip install {error.name}") from None
        asked = copy.get_trials(deepcopy=False)[number]
        own = self.storage.get_study_id_from_name(NAME)
        for key, value in copied.get_study_system_attrs(copied.get_study_id_from_name(NAME)).items():
            self.storage.set_study_system_attr(own, key, value)
        self.study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=asked.params,
                distributions=asked.distributions,
                system_attrs=asked.system_attrs,
            )
        )

    def note(self, number: int, **facts: Any) -> None:
        """Notes facts of a trial, such as its experiment."""
        for name, value in facts.items():
            self.storage.set_trial_user_attr(self._id(number), name, value)

    def prunes(self, number: int, values: Sequence[float]) -> bool:
        """Tells the pruner of the evaluations of a trial, one by one, and returns whether it ends the trial at one.

        What it says follows from the trials alone, not from when it was asked: evaluations made meanwhile are not told.
        """
        known = len(self._trial(number).intermediate_values)
        for place in range(max(known, 1), len(values) + 1):
            if place > known:
                self.storage.set_trial_intermediate_value(self._id(number), place, values[place - 1])
            with quiet():
                if self.study.pruner.prune(self.study, self._trial(number)):
                    return True
        return False

    def end(self, number: int, state: TrialState, value: float | None = None) -> None:
        """Ends a trial: COMPLETE with its value, PRUNED with that of its last evaluation, or FAIL."""
        with quiet():
            self.study.tell(number, value, state)

    def best(self) -> FrozenTrial | None:
        """Returns the best of the complete ones; None if there is none yet."""
        complete = [trial for trial in self.all() if trial.state == TrialState.COMPLETE]
        return self.study.best_trial if complete else None

    def _trial(self, number: int) -> FrozenTrial:
        return self.all()[number]

    def _id(self, number: int) -> int:
        own = self.storage.get_study_id_from_name(NAME)
        return self.storage.get_trial_id_from_study_id_trial_number(own, number)


def fact(trial: FrozenTrial, name: str, default: Any = None) -> Any:
    """Returns what :meth:`Trials.note` has noted."""
    facts: Mapping[str, Any] = trial.user_attrs
    return facts.get(name, default)


def _cut_torn_line(file: Path) -> None:
    """Removes a last line that a killed machine has not written whole: what comes next would be added to it."""
    with contextlib.suppress(FileNotFoundError), file.open("rb+") as journal:
        whole = journal.read().rpartition(b"\n")
        if whole[2]:
            journal.truncate(len(whole[0]) + len(whole[1]))
            os.fsync(journal.fileno())


def _check_lines(file: Path) -> None:
    """Raises a UserError that names the first line of a journal that is none."""
    with contextlib.suppress(FileNotFoundError):
        for number, line in enumerate(file.read_bytes().split(b"\n")[:-1], 1):
            try:
                whole = "op_code" in json.loads(line)
            except (ValueError, TypeError):
                whole = False
            if not whole:
                cure = "cut the file before it to go on from there, or begin another search with --name NAME"
                raise UserError(f"{shown(file)}: line {number} is damaged; {cure}")
