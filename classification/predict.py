"""``python -m classification.predict --experiment DIR --images PATH... --output prediction.csv [key.path=value ...]``

Says what a trained model sees in pictures. The training data need not be there: all comes from the checkpoint.
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
        prog="python -m classification.predict",
        description="Says what a trained model sees in pictures, as a CSV file. Pictures that cannot be read are "
        "named, and have a row with the reason in column `error`.",
    )
    add_experiment_arguments(parser)
    parser.add_argument(
        "--images",
        required=True,
        nargs="+",
        action="extend",
        metavar="PATH",
        help="pictures, folders of them (searched to the bottom), and .csv files with a column of paths",
    )
    parser.add_argument("--output", type=Path, default=Path("prediction.csv"), metavar="FILE", help="where to write")
    parser.add_argument("--top-k", type=_count, default=5, metavar="K", help="classes listed of each (default: 5)")
    parser.add_argument("--path-column", default="path", metavar="NAME", help=".csv files' column (default: path)")
    parser.add_argument(
        "--root", type=Path, default=Path(), metavar="DIR", help="what relative paths in .csv files start from (here)"
    )
    parser.add_argument(
        "--delimiter",
        type=_character,
        default=",",
        metavar="CHARACTER",
        help="what separates the columns of .csv files (default: ,); \\t is a tab",
    )
    return parser.parse_intermixed_args(settings_first(argv))


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{count} classes; at least 1")
    return count


def _character(text: str) -> str:
    character = "\t" if text == r"\t" else text
    if len(character) != 1:
        raise argparse.ArgumentTypeError(f"{text!r}; one character, such as ';'")
    return character


def main() -> int:
    """Returns the exit code."""
    arguments = parse_arguments(sys.argv[1:])

    from classification.config import ClassificationConfig
    from engine.run_folder.used_config import used_config

    used_config(arguments.experiment, ClassificationConfig, arguments.overrides)

    from classification.prediction import PredictArguments, run_prediction  # imports torch: mistakes are told before

    return run_prediction(PredictArguments(**vars(arguments)))


if __name__ == "__main__":
    exit_on_user_error(main)
