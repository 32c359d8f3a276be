"""``python -m detection.predict --experiment DIR --images PATH... --output DIR [--checkpoint …] [key=value …]``

Finds objects on any images. PATH is an image, a folder that is searched for them, or a .csv file that lists some.
DIR gets detections.json, in COCO's format with the images' names, and images/ with the boxes drawn; it must not
hold any from before. Broken images are named and left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from detection.spec import SPEC
from engine.commands.entry import predict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``--output``."""
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="for the results; holds none yet")


if __name__ == "__main__":
    predict(SPEC, "Finds objects on images with a trained model.", add_arguments)
