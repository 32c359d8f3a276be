"""The few numbers of a run that change as it goes: where it stands, its best result, the sums of its next record."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from engine.training.selection import Plateau, Progress


@dataclass
class Window:
    """Sums over the optimizer steps since the last training record."""

    steps: int = 0
    samples: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    grad_norm: float = 0.0

    def add(self, sums: dict[str, float], samples: float, grad_norm: float) -> None:
        """Adds a step: sums of each metric over its samples, their number, and the norm of its gradient."""
        self.steps += 1
        self.samples += samples
        self.grad_norm += grad_norm
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Returns each metric's mean over samples and the gradient norm's over steps; empty if all were skipped."""
        if not self.steps:
            return {}
        means = {name: value / self.samples for name, value in self.sums.items()}
        return {**means, "grad_norm": self.grad_norm / self.steps}


@dataclass
class RunState:
    """Saved in each checkpoint; everything else about a position is computed from ``step``."""

    step: int = 0
    """Optimizer steps done, skipped ones included: the position in the data."""
    updates: int = 0
    """Steps that changed the weights: the position in the schedule and in the moving average's warm-up."""
    skipped_in_row: int = 0
    """Steps skipped for non-finite values since the last good one."""
    best: dict[str, float] = field(default_factory=dict)
    """Step, epoch and value of the best evaluation."""
    patience: Progress = field(default_factory=Progress)
    """State of early stopping."""
    plateau: Plateau = field(default_factory=Plateau)
    """State of the plateau schedule."""
    findings: dict[str, Any] = field(default_factory=dict)
    """What the last evaluation has found and whoever uses the weights needs, such as thresholds."""
    window: Window = field(default_factory=Window)
    evaluation_owed: bool = False
    """Whether ``step`` is to be evaluated before the next one: a stop request came in between."""
    stopped_early: bool = False
    """Whether early stopping has ended the run."""

    @property
    def skipped(self) -> int:
        """Returns the steps skipped for non-finite values so far."""
        return self.step - self.updates

    def state_dict(self) -> dict[str, Any]:
        """Returns nested dicts of plain values, which share nothing with the state."""
        return asdict(self)

    @staticmethod
    def from_state(saved: dict[str, Any]) -> RunState:
        """Takes a copy of ``saved``. Raises KeyError naming the entries that are missing or surplus."""
        expected = {f.name for f in fields(RunState)}
        if expected != set(saved):
            missing, surplus = sorted(expected - set(saved)), sorted(set(saved) - expected)
            raise KeyError(f"run state: missing {missing}, surplus {surplus}")
        state = RunState(**deepcopy(saved))
        state.patience, state.plateau = Progress(**saved["patience"]), Plateau.from_state(saved["plateau"])
        state.window = Window(**deepcopy(saved["window"]))
        return state
