"""The loop of a search: trials are asked for, started, followed by their records, pruned and ended."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from optuna.trial import FrozenTrial, TrialState

from engine.errors import UserError
from engine.files import shown
from engine.run_folder.as_found import number, read_records
from engine.run_folder.paths import RunDir
from tools.search.space import settings_of
from tools.search.trials import Trials, fact
from tools.submit.overview import View

MOST_STARTS = 5
"""Times that a trial is queued whose job ends without a word."""


class Starter(Protocol):
    """What a search needs of :class:`tools.search.runs.Runs`."""

    @property
    def root(self) -> Path: ...

    def claim(self, number: int, settings: Sequence[str]) -> RunDir: ...

    def queue(self, runs: Mapping[RunDir, Sequence[str]], places: Sequence[int]) -> None: ...

    def views(self, runs: Sequence[RunDir]) -> list[View]: ...

    def cancel(self, view: View) -> bool: ...


@dataclass
class Search:
    """A search under way. Nothing of it is in this object alone: another one goes on where it is ended."""

    trials: Trials
    runs: Starter
    metric: str
    direction: Literal["min", "max"]
    told: Callable[[str], object] = print
    """Is given a line for each thing that happens."""
    _cancelled: set[int] = field(default_factory=set)

    def run(self, count: int, parallel: int, poll: float) -> None:
        """Makes trials until ``count`` have ended, at most ``parallel`` of them at once; looks every ``poll`` seconds.

        Raises:
            UserError: a job is refused; or the first trials all failed.
        """
        while True:
            self.follow()
            self._refuse_hopeless()
            while len(self.trials.running()) < parallel and len(self.trials.all()) < count:
                self.trials.ask()
            self.start()
            if not self.trials.running():
                if len(self.trials.all()) >= count:
                    return
                continue
            time.sleep(poll)

    def start(self) -> None:
        """Queues the trials that neither wait nor run: new ones, and those whose job was ended from outside."""
        waiting: dict[RunDir, Sequence[str]] = {}
        places: list[int] = []
        for trial in self.trials.running():
            settings = settings_of(trial.params)
            if fact(trial, "experiment") is None:
                try:
                    run = self.runs.claim(trial.number, settings)
                except UserError as error:
                    self._fail(trial, str(error))
                    continue
                self.trials.note(trial.number, experiment=run.name)
        open_ = self.trials.running()
        taken = {fact(trial, "place"): trial.number for trial in open_ if fact(trial, "place") is not None}
        for trial, view in zip(open_, self.runs.views([self._folder(trial) for trial in open_]), strict=True):
            is_new = view.note is None and not view.alive
            local = view.note is not None and view.note.cluster == "local"  # on another host nobody sees its process
            gone = view.alive is False or (local and not view.alive)
            if not (is_new or (gone and view.state in ("lost", "interrupted"))):
                continue
            if (starts := fact(trial, "starts", 0)) >= MOST_STARTS:
                self._fail(trial, f"was started {starts} times, and each time its job ended without a word")
                continue
            place = fact(trial, "place")
            if place is None:
                place = next(free for free in range(len(open_)) if free not in taken)
                taken[place] = trial.number
            self.trials.note(trial.number, place=place, starts=starts + 1)
            self.told(f"trial {trial.number}: {view.folder.name}  {' '.join(settings_of(trial.params))}")
            waiting[view.folder] = settings_of(trial.params)
            places.append(place)
        if waiting:
            self.runs.queue(waiting, places)

    def follow(self) -> None:
        """Reads what the running trials have recorded: prunes, and ends those that have come to an end."""
        running = [trial for trial in self.trials.running() if fact(trial, "experiment") is not None]
        for trial, view in zip(running, self.runs.views([self._folder(trial) for trial in running]), strict=True):
            if not view.folder.path.is_dir() or (view.state == "unknown" and view.alive is False):
                self._fail(trial, f"{shown(view.folder.path)} is gone, or has no status.json")
                continue
            values = self.values(view.folder)
            pruned = fact(trial, "pruned", False)
            if not pruned and self.trials.prunes(trial.number, values):
                self.trials.note(trial.number, pruned=True)
                pruned = True
            if pruned:
                self._end_pruned(trial, view)
            elif view.state == "finished":
                self._complete(trial, values)
            elif view.state == "failed" and not view.alive:
                self._fail(trial, f"{view.why}; {shown(Path(view.note.log))}" if view.note is not None else view.why)

    def values(self, folder: RunDir) -> list[float]:
        """Returns the metric of each evaluation; NaN where it was not finite."""
        records = [
            record
            for record in read_records(folder.metrics, lambda problem: None)
            if record["split"] == "val" and "source" not in record and self.metric in record
        ]
        found = (number(record[self.metric]) for record in records)
        return [math.nan if value is None else value for value in found]

    def _end_pruned(self, trial: FrozenTrial, view: View) -> None:
        """Cancels a trial's job; once it is gone, the trial has ended."""
        if view.alive and view.state != "finished":
            if trial.number not in self._cancelled and self.runs.cancel(view):
                self._cancelled.add(trial.number)
            return
        if view.alive is None and view.note is not None and view.state != "finished":
            return  # Slurm does not answer: the next look may know
        self.trials.end(trial.number, TrialState.PRUNED)
        known = list(self.trials.all()[trial.number].intermediate_values.values())
        self.told(f"trial {trial.number}: pruned after evaluation {len(known)}, {self.metric} {known[-1]:.4g}")

    def _complete(self, trial: FrozenTrial, values: Sequence[float]) -> None:
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            self._fail(trial, f"{self.metric} was never a number")
            return
        value = max(finite) if self.direction == "max" else min(finite)
        self.trials.end(trial.number, TrialState.COMPLETE, value)
        best = self.trials.best()
        star = "  (best so far)" if best is not None and best.number == trial.number else ""
        self.told(f"trial {trial.number}: {self.metric} {value:.4f}{star}")

    def _fail(self, trial: FrozenTrial, why: str) -> None:
        self.trials.note(trial.number, why=why)
        self.trials.end(trial.number, TrialState.FAIL)
        self.told(f"trial {trial.number}: failed: {why}")

    def _refuse_hopeless(self) -> None:
        """Ends a search of which nothing but failures has come: its settings, or the machine, are at fault."""
        ended = [trial for trial in self.trials.all() if trial.state.is_finished()]
        if len(ended) >= MOST_STARTS and all(trial.state == TrialState.FAIL for trial in ended):
            why = fact(ended[-1], "why", "")
            cure = "mend the cause, and begin another search with --name NAME"
            raise UserError(f"all of the first {len(ended)} trials failed, the last one: {why}; {cure}")

    def _folder(self, trial: FrozenTrial) -> RunDir:
        return RunDir(self.runs.root / fact(trial, "experiment"))
