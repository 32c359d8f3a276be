"""What a run tells the world: records, TensorBoard, status, README, checkpoints. Rank 0's work, in one place."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.board.card import card_of, write_card, write_end
from engine.board.place import board_for
from engine.board.settings import telling_settings
from engine.checkpoints.background_saver import Saver
from engine.commands.progress_bar import Progress
from engine.config.load import dump_config
from engine.config.run import RunConfig
from engine.devices.profiling import StepProfiler
from engine.files import command, remove_leftovers, shown, warning_of_a_bad_disk, write_atomic
from engine.images.image_io import ImageArray, write_image
from engine.plots.curves import write_curves
from engine.process.time_limit import Walltime
from engine.run_folder.environment import describe_start, record_end, record_start
from engine.run_folder.failure import archive_failure, read_failure, record_silent_end
from engine.run_folder.metrics import MetricWriter
from engine.run_folder.paths import RunDir
from engine.run_folder.readme import resume_command, write_readme
from engine.run_folder.status import Status, mark_failed
from engine.training.recorder import Recorder
from engine.training.state import RunState

log = logging.getLogger(__name__)

SAME_AS_TOP1 = ("precision_micro", "recall_micro", "f1_micro", "recall_weighted")
"""With one label an image."""
LAST_SAVE_SECONDS = 5.0
"""What a run that failed gives a checkpoint that is being written."""


class UnsavedError(RuntimeError):
    """A run has come to its end, and the disk cannot be written."""


class FolderRecorder(Recorder):
    """Writes a run's folder."""

    def __init__(
        self,
        folder: RunDir,
        task: str,
        *,
        config: RunConfig,
        directions: Mapping[str, Any],
        metric: str,
        cost: Mapping[str, float | None],
        ranks: list[dict[str, Any]],
        changes: list[str],
        step: int,
        walltime: Walltime,
    ) -> None:
        """Records a start.

        Args:
            directions: ``max`` or ``min`` of each metric.
            metric: that which decides which checkpoint is the best.
            cost: what the model costs, see :func:`engine.model.cost.model_cost`.
            ranks: what each rank says of itself, see :func:`engine.run_folder.environment.describe_rank`.
            changes: settings that this start has changed, as ``key: old -> new``.
            step: where it begins.
            walltime: is told how long steps and saves take.
        """
        self._folder, self._task, self._logging = folder, task, config.logging
        self._directions, self._metric, self._walltime = directions, metric, walltime
        self._resume = resume_command(task, folder.path, len(ranks), len({rank["host"] for rank in ranks}))
        remove_leftovers(folder.path)
        silent = record_silent_end(folder)
        if silent is not None:
            log.warning("the last start %s", silent.reason)
        dumped = dump_config(config)
        write_atomic(folder.config, dumped)
        start = {"task": task, "metric": metric, "direction": directions.get(metric), "model": dict(cost)}
        start |= {**describe_start(ranks), "step": step, **({"changed_settings": changes} if changes else {})}
        environment = record_start(folder.environment, start)
        self._metrics = MetricWriter(folder, config.logging.tensorboard, config.experiment.name)
        if config.logging.tensorboard:
            with warning_of_a_bad_disk(folder.tensorboard):
                card = card_of(environment, dumped, telling_settings(config), metric)
                write_card(board_for(folder.path, config.experiment.name), card)
        self._status = Status(folder.status)
        self._saver = Saver(folder.checkpoints, config.checkpoint.keep, before_publish=self._before_publish)
        self._profiler = StepProfiler(config.training.profile, folder.results)
        self._progress: Progress | None = None
        self._last_save = time.monotonic()
        self._best: dict[str, float] = {}
        failure = read_failure(folder.failed)
        self._overcome_at = failure.step + 1 if failure is not None else None

    def begin(self, state: RunState, epoch: float, total_steps: int) -> None:
        every = self._logging.every_steps
        self._metrics.resume_at(state.step, evaluated=not state.evaluation_owed, every=every)
        self._progress = Progress(total_steps, state.step)
        self._tell(state, epoch)
        log.info("experiment folder: %s", shown(self._folder.path))
        self._profiler.begin(state.step, total_steps)

    def stepped(self, state: RunState, epoch: float) -> None:
        assert self._progress is not None
        self._profiler.reached(state.step)
        self._walltime.stepped()
        self._status.update(step=state.step, epoch=epoch)
        self._progress.advance(state.step)
        if self._overcome_at is not None and state.step >= self._overcome_at:
            archive_failure(self._folder.failed, state.step)
            self._overcome_at = None

    def trained(self, state: RunState, epoch: float, metrics: dict[str, float]) -> None:
        assert self._progress is not None
        self._metrics.write(state.step, epoch, "train", metrics)
        self._progress.update(state.step, epoch, metrics)

    def evaluated(self, state: RunState, epoch: float, split: str, metrics: dict[str, float]) -> None:
        self._metrics.write(state.step, epoch, split, metrics)
        star = "  (best so far)" if state.best.get("step") == state.step else ""
        log.info("epoch %g %s: %s%s", round(epoch, 2), split, listed(metrics), star)
        self._tell(state, epoch)
        self._metrics.show("result", self._result(state, epoch, metrics), state.step)

    def _result(self, state: RunState, epoch: float, metrics: Mapping[str, float]) -> dict[str, float]:
        """Returns how far the run is, and its best and last results: what a table of runs begins with."""
        names = {"epoch": "epoch_of_best"}
        best = {names.get(name, f"best_{name}"): value for name, value in state.best.items() if name != "step"}
        last = {f"last_{name}": metrics[name] for name in ("loss", self._metric) if name in metrics}
        return {"epoch": epoch, **best, **last}

    def write(self, state: RunState, split: str, write: Callable[[Path, int], Mapping[str, ImageArray]]) -> None:
        results = self._folder.results
        with warning_of_a_bad_disk(results):
            for name, image in write(results, state.step).items():
                self._metrics.image(f"{split}/{name}", image, state.step)

    def show(self, state: RunState, split: str, draw: Callable[[], Mapping[str, ImageArray]]) -> None:
        if self._logging.tensorboard:
            for name, image in draw().items():
                self._metrics.image(f"{split}/{name}", image, state.step)

    def trace(self, state: RunState, split: str, curves: Callable[[], Mapping[str, NDArray[np.float64]]]) -> None:
        if self._logging.tensorboard:
            for name, points in curves().items():
                self._metrics.curve(f"{split}/precision_recall/{name}", points, state.step)

    def keep(self, draw: Callable[[], Mapping[str, ImageArray]]) -> None:
        for name, image in draw().items():
            path = self._folder.results / f"{name}.png"
            with warning_of_a_bad_disk(path):
                write_image(path, image)
            self._metrics.image(name, image, 0)

    def save(self, state: RunState, content: dict[str, Any], best: bool) -> None:
        self._last_save = time.monotonic()
        self._saver.save(state.step, content, best)
        self._walltime.paused()

    def _before_publish(self) -> None:
        self._metrics.flush()
        self._walltime.saved(time.monotonic() - self._last_save)

    def minutes_due(self, every: float | None) -> bool:
        return every is not None and time.monotonic() - self._last_save >= 60 * every

    def end(self, outcome: str) -> None:
        self._walltime.close()
        if outcome != "failed":  # else another thread may call
            self._profiler.close()
        if self._progress is not None:
            self._progress.close()
        saved = self._saver.close(timeout=LAST_SAVE_SECONDS if outcome == "failed" else None)
        if outcome == "finished" and not saved:
            raise UnsavedError(
                f"the run is complete, but its last checkpoint cannot be written into {self._folder.checkpoints}; "
                f"make room and go on with: {self._resume}"
            )
        if not saved:
            log.error("the newest steps could not be saved: the run will go on from an older checkpoint")
        self._metrics.close()
        self._status.close(outcome)
        record_outcome(self._folder, outcome)
        self._write_readme()
        if outcome != "failed":
            self._draw_curves()
        if outcome == "finished":
            archive_failure(self._folder.failed, sys.maxsize)
            self._say_result()

    def end_at_once(self) -> None:
        """Has status.json and README.md say that the run was interrupted; in a signal's handler, before the end."""
        self._status.end_at_once("interrupted")
        record_outcome(self._folder, "interrupted")
        self._write_readme()

    def _tell(self, state: RunState, epoch: float) -> None:
        """Has status.json and README.md say how far the run is."""
        self._best = state.best
        self._status.update(
            state="running",
            epoch=epoch,
            step=state.step,
            best=state.best,
            stopped_early=state.stopped_early,
            skipped_in_row=state.skipped_in_row,
        )
        self._write_readme()

    def _write_readme(self) -> None:
        with warning_of_a_bad_disk(self._folder.readme):
            write_readme(self._folder, self._task)

    def _draw_curves(self) -> None:
        path = self._folder.results / "curves.png"
        try:
            write_curves(self._folder.metrics, path, self._directions)
        except Exception as error:  # whatever it is, the run itself is complete
            log.warning("%s cannot be drawn: %s; going on without", path, error)

    def _say_result(self) -> None:
        folder, best = self._folder, self._best
        value = ", ".join(f"{name} {number:.4f}" for name, number in best.items() if name not in ("step", "epoch"))
        log.info("finished%s", f"; best {value} at epoch {round(best['epoch'], 2):g}" if best else "")
        log.info("results:     %s", shown(folder.readme))
        evaluate = command("python", "-m", f"{self._task}.evaluate", "--experiment", folder.path)
        log.info("evaluate:    %s", evaluate)
        log.info("TensorBoard: %s", command("tensorboard", "--logdir", folder.path.parent))


def record_outcome(folder: RunDir, outcome: str) -> None:
    """Has environment.json and TensorBoard say how a start has ended."""
    with warning_of_a_bad_disk(folder.environment):
        record_end(folder.environment, outcome)
        write_end(folder.tensorboard, outcome, time.time())


def record_failed(folder: RunDir, task: str, step: int) -> None:
    """Has status.json and README.md say that the run has failed; for a run whose recorder is gone."""
    with warning_of_a_bad_disk(folder.path):
        mark_failed(folder.status, step)
        record_outcome(folder, "failed")
        write_readme(folder, task)


def listed(metrics: dict[str, float]) -> str:
    """Formats metrics as ``top1 0.9812  loss 0.1``, for a line of the log; without what repeats the top1."""
    shown = {name: value for name, value in metrics.items() if "top1" not in metrics or name not in SAME_AS_TOP1}
    return "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
