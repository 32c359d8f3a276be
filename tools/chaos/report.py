"""The verdict on a killed run: a table of its kills, and a line for each thing that has to hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.run_folder.paths import RunDir
from tools.chaos import compare, samples
from tools.chaos.rounds import GONE_WITHIN, Run, Struck

HEAD = f"{'kill':>4}  {'when':<5}  {'what':<16}  {'step':>5} {'':>5}  {'all gone after':>14}  {'resumed at':>10}"


@dataclass(frozen=True)
class Check:
    """Something that has to hold, and what is wrong with it if anything is."""

    name: str
    fault: str | None

    def __str__(self) -> str:
        return f"ok    {self.name}" if self.fault is None else f"FAIL  {self.name}: {self.fault}"


def kill_line(number: int, struck: Struck) -> str:
    """Formats one kill as a line below :data:`HEAD`. ``37 +5``: in step 37, and the survivors went on for five more."""
    gone = f"{struck.seconds:.1f} s" if struck.seconds is not None else f"> {GONE_WITHIN:g} s"
    step, resumed = ("-" if value is None else str(value) for value in (struck.step, struck.resumed_at))
    on = f"+{(struck.last_step or 0) - (struck.step or 0)}" if struck.last_step != struck.step else ""
    return f"{number:>4}  {struck.kill.moment:<5}  {struck.what:<16}  {step:>5} {on:>5}  {gone:>14}  {resumed:>10}"


def check_kills(kills: Sequence[Struck], failure: str | None, planned: int) -> list[Check]:
    """Checks whether the run went through all kills, and each start ended in time."""
    slow = [f"after kill {number}" for number, struck in enumerate(kills, 1) if struck.seconds is None]
    made = len(kills)
    left = f"some had to be killed {', '.join(slow)}" if slow else None
    return [
        Check("every start but the killed ones succeeded", failure),
        Check(f"{planned} kills", None if made == planned else f"only {made} were made before the run ended"),
        Check(f"all processes gone within {GONE_WITHIN:g} s", left),
    ]


def check_results(reference: Run, killed: Run) -> list[Check]:
    """Compares what two runs have left behind. A comparison that is not possible is a fault."""
    assert reference.experiment is not None
    if killed.experiment is None:
        return [Check("an experiment folder", "there is none")]
    left, right = RunDir(reference.experiment), RunDir(killed.experiment)
    total_steps = int(compare.read_checkpoint(left)["run"]["step"])
    return [
        *_checkpoint_checks(left, right),
        _tried("train records", compare.records_difference, left.metrics, right.metrics, "train"),
        _tried("val records", compare.records_difference, left.metrics, right.metrics, "val"),
        _tried("steps of metrics.jsonl", compare.metrics_order_fault, right.metrics, total_steps),
        _tried("steps of TensorBoard", compare.board_fault, left.tensorboard, right.tensorboard, total_steps),
        *_sample_checks(reference, killed, total_steps),
        _tried("status", compare.status_difference, left.status, right.status),
    ]


def _checkpoint_checks(left: RunDir, right: RunDir) -> Sequence[Check]:
    try:
        differences = compare.checkpoint_differences(left, right)
    except (OSError, RuntimeError) as error:
        return [Check("checkpoint", str(error))]
    return [Check(f"checkpoint: {name}", difference) for name, difference in differences.items()]


def _sample_checks(reference: Run, killed: Run, total_steps: int) -> Sequence[Check]:
    (peaceful,), starts = reference.diaries(), killed.diaries()
    epoch = peaceful.epoch
    assert epoch is not None, "the reference has finished"
    fed = samples.last_fed(start.fed for start in starts)
    return [
        Check("repeated steps had the same samples", samples.repeat_fault(start.fed for start in starts)),
        Check(f"{epoch.used} samples once an epoch", samples.epochs_fault(fed, epoch, total_steps)),
        Check("samples of each step", samples.difference(samples.last_fed([peaceful.fed]), fed)),
    ]


def _tried(name: str, function: Callable[..., str | None], *arguments: object) -> Check:
    try:
        return Check(name, function(*arguments))
    except (OSError, ValueError, KeyError) as error:
        return Check(name, f"{type(error).__name__}: {error}")
