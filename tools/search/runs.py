"""The experiments of a search: claimed, queued and cancelled in the ways of tools.submit."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.config.load import load_config
from engine.run_folder.as_found import read_settings
from engine.run_folder.paths import RunDir
from engine.run_folder.status import read_status
from engine.run_folder.writer_lock import live_writer
from engine.task.spec import find_spec
from tools.submit import folders
from tools.submit.overview import View, look, slurm_queue
from tools.submit.resources import Resources
from tools.submit.submission import check_batches, named, queue


@dataclass(frozen=True)
class Runs:
    """Starts experiments of one search, and looks how they are doing."""

    task: str
    config: Path
    overrides: Sequence[str]
    search: str
    """The name of the search."""
    root: Path
    """``experiment.root``."""
    cluster: str
    resources: Resources

    def claim(self, number: int, settings: Sequence[str]) -> RunDir:
        """Returns the folder of trial ``number``, with its configuration: a new one, or one that was claimed before.

        Raises:
            UserError: there is no run with these settings.
        """
        config = load_config(find_spec(self.task).schema(), self.config, [*self.overrides, *settings])
        check_batches([config], self.resources)
        own = [f"search {self.search}", f"trial {number}"]
        if (before := self._claimed(own)) is not None:
            return before
        name = " ".join(filter(None, [config.experiment.name, self.search, f"trial {number}"]))
        return folders.claim([named(config, name, [*own, *settings])])[0]

    def _claimed(self, tags: Sequence[str]) -> RunDir | None:
        """Returns a folder that this search has claimed for a trial and did not get to note: nobody has queued it."""
        for path in self.root.glob("experiment_*"):
            run = RunDir(path)
            if (read_status(run.status) or {}).get("state") == "queued" and folders.read_note(run) is None:
                own = read_settings(run.config, lambda problem: None).get("experiment.tags")
                if own is not None and set(tags) <= set(json.loads(own)):
                    return run
        return None

    def queue(self, runs: Mapping[RunDir, Sequence[str]], places: Sequence[int]) -> None:
        """Queues the experiments in their folders, each with what is special about it.

        Args:
            runs: As one array of Slurm's, or each by itself on this machine.
            places: Which of the places at once each of them takes: on this machine, its GPUs.
        """
        if self.cluster == "slurm":
            queue(self.task, list(runs), [tuple(each) for each in runs.values()], "slurm", self.resources, self.search)
            return
        for place, (run, settings) in zip(places, runs.items(), strict=True):
            queue(self.task, [run], [tuple(settings)], self.cluster, self.resources, self.search, place)

    def views(self, runs: Sequence[RunDir]) -> list[View]:
        """Returns how experiments are doing."""
        queued = slurm_queue() if runs and self.cluster == "slurm" else None
        return [look(run, queued) for run in runs]

    def cancel(self, view: View) -> bool:
        """Has an experiment save and end, if it still waits or runs. Returns whether it was told."""
        if self.cluster == "slurm":
            return subprocess.run(["scancel", view.job], check=False, capture_output=True).returncode == 0
        writer = live_writer(view.folder)  # and not the job's process, whose number may be another's by now
        if writer is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(writer.pid, signal.SIGTERM)
        return writer is not None
