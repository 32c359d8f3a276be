"""``python -m classification.evaluate --experiment DIR [--checkpoint best|last|FILE] [--split val|test] [key=value …]``

Evaluates a trained model on any number of ranks and writes results/<split>/ in the experiment's folder.
"""

from __future__ import annotations

import argparse
import sys

from engine.arguments import add_experiment_arguments
from engine.entry import exit_on_user_error


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m classification.evaluate",
        description="Evaluates a trained model and writes a report of it.",
    )
    add_experiment_arguments(parser)
    parser.add_argument("--split", choices=("val", "test"), default="val", help="which pictures (default: val)")
    return parser.parse_intermixed_args(argv)


def main() -> int:
    """Returns the exit code."""
    arguments = parse_arguments(sys.argv[1:])

    from classification.config import TRAINED, ClassificationConfig
    from engine.used_config import used_config

    used_config(arguments.experiment, ClassificationConfig, arguments.overrides, TRAINED)

    from classification.evaluation import run_evaluation  # imports torch: a mistake is told before that

    return run_evaluation(arguments.experiment, arguments.checkpoint, arguments.split, arguments.overrides)


if __name__ == "__main__":
    exit_on_user_error(main)
