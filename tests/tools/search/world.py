"""Experiments that are not trained: each look at them makes another evaluation, whose value follows from their lr."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.run_folder.paths import RunDir
from tools.submit.folders import Note
from tools.submit.overview import View

EVALUATIONS = 4
NOTE = Note("classification", "local", "1", "here", "job.out", "abc", {})


class World:
    """Stands for a machine that goes on where a search is killed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.claimed: dict[int, RunDir] = {}
        self.settings: dict[str, Sequence[str]] = {}
        self.states: dict[str, str] = {}
        self.queued: list[str] = []
        self.places: list[int] = []
        self.ends: dict[str, str] = {}
        """How the job of an experiment ends after its first evaluation, by its name."""

    def claim(self, number: int, settings: Sequence[str]) -> RunDir:
        if number not in self.claimed:
            self.claimed[number] = RunDir.claim(self.root)
            self.settings[self.claimed[number].name] = settings
        return self.claimed[number]

    def queue(self, runs: Mapping[RunDir, Sequence[str]], places: Sequence[int]) -> None:
        for run in runs:
            self.queued.append(run.name)
            self.states[run.name] = "running"
        self.places += places

    def views(self, runs: Sequence[RunDir]) -> list[View]:
        for run in runs:
            if self.states.get(run.name) == "running":
                self._evaluate(run)
        states = [(run, self.states.get(run.name)) for run in runs]
        return [
            View(run, state or "queued", 0, 0.0, "why", NOTE if state else None, "1", state == "running")
            for run, state in states
        ]

    def cancel(self, view: View) -> bool:
        self.states[view.folder.name] = "interrupted"
        return True

    def _evaluate(self, run: RunDir) -> None:
        values = dict(text.split("=") for text in self.settings[run.name])
        before = run.metrics.read_text().splitlines() if run.metrics.exists() else []
        best = -abs(math.log10(float(values["optimizer.lr"])) + 3)
        value = best + 0.1 * len(before)
        record = {"step": len(before) + 1, "epoch": 1.0, "split": "val", "top1": value}
        run.metrics.write_text("\n".join([*before, json.dumps(record), ""]))
        if end := self.ends.get(run.name):
            self.states[run.name] = end
        elif len(before) + 1 >= EVALUATIONS:
            self.states[run.name] = "finished"
