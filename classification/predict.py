"""``python -m classification.predict --experiment DIR --images PATH... --output prediction.csv [key.path=value ...]``

Says what a trained model sees in images. The training data need not be there: all comes from the checkpoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from classification.spec import SPEC
from engine.commands.entry import predict

DESCRIPTION = (
    "Says what a trained model sees in images, as a CSV file. Images that cannot be read are named, and have a row "
    "with the reason in column `error`."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``--output`` and ``--top-k``."""
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("prediction.csv"),
        metavar="FILE",
        help="the table to write (default: prediction.csv)",
    )
    parser.add_argument("--top-k", type=_count, default=5, metavar="K", help="classes listed of each (default: 5)")


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{count} classes; at least 1")
    return count


if __name__ == "__main__":
    predict(SPEC, DESCRIPTION, add_arguments)
