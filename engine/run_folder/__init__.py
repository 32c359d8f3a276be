"""What a run leaves behind: one module for each file of an experiment's folder, and all of them read as one table."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.run_folder.experiments import read_experiments

__all__ = ["read_experiments"]


def __getattr__(name: str) -> Any:
    """Imports what reads whole experiments when it is asked for: those who write them do without."""
    if name != "read_experiments":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from engine.run_folder.experiments import read_experiments

    return read_experiments
