"""``python -m detection.predict --experiment DIR --images PATH... --output DIR [--checkpoint …] [key=value …]``

Finds objects on any pictures. PATH is a picture, or a folder that is searched for them. DIR gets detections.json, in
COCO's format with the pictures' names, and pictures/ with the boxes drawn; it must not hold any from before. Broken
pictures are named and left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from engine.commands.arguments import add_experiment_arguments, settings_first
from engine.commands.entry import exit_on_user_error


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m detection.predict",
        description="Finds objects on pictures with a trained model.",
    )
    add_experiment_arguments(parser)
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        nargs="+",
        action="extend",
        metavar="PATH",
        help="pictures, and folders of them (searched to the bottom)",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="for the results; holds none yet")
    return parser.parse_intermixed_args(settings_first(argv))


def main() -> int:
    """Returns the exit code."""
    arguments = parse_arguments(sys.argv[1:])

    from detection.train import schema
    from engine.run_folder.used_config import used_config

    used_config(arguments.experiment, schema(), arguments.overrides)

    from detection.prediction import run_prediction  # imports torch: a mistake is told before that

    return run_prediction(
        arguments.experiment, arguments.checkpoint, arguments.images, arguments.output, arguments.overrides
    )


if __name__ == "__main__":
    exit_on_user_error(main)
