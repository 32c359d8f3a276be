"""``python -m detection.evaluate --experiment DIR [--checkpoint best|last|FILE] [--split val|test] [key=value …]``

Evaluates a trained model on any number of ranks and writes results/<split>/ in the experiment's folder.
"""

from __future__ import annotations

from collections.abc import Callable

from detection.train import schema
from engine.commands.arguments import EvaluateArguments
from engine.commands.entry import evaluate


def run() -> Callable[[EvaluateArguments], int]:
    """What evaluates; imports torch only when called."""
    from detection.evaluation import run_evaluation

    return run_evaluation


if __name__ == "__main__":
    evaluate("detection", schema, run)
