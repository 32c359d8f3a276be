"""Makes an even data set awkward: from class folders to a CSV file that keeps few images of most classes.

``python -m tools.long_tail --root data/clothing --output long_tail.csv [--least 8] [--most 700] [--seed 0]``

The training images of class i of C, the largest first, are cut down to ``most * (least / most) ** (i / (C - 1))``, as
Cui et al. (arXiv:1901.05555) make CIFAR-10-LT; val and test stay as they are. No image is copied: the file is for
``data: {source: csv, root: data/clothing, csv: long_tail.csv, label_columns: [label], split_column: split}``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.commands.arguments import command_parser
from engine.commands.entry import exit_code
from engine.datasets.class_folders import SPLIT_FOLDERS, has_split, open_folder
from engine.datasets.labelled import class_counts
from engine.datasets.sections import FolderData
from engine.errors import UserError
from engine.files import is_stream, write_atomic
from engine.seed import generator
from engine.text import csv_bytes

HEADER = ("file", "label", "split")


def tail_sizes(available: Sequence[int], least: int, most: int) -> list[int]:
    """Returns how many images to keep of each class, in the order of ``available``: the larger a class is, the more.

    Raises:
        UserError: a class has too few images for its place in the row.
    """
    order = np.argsort(-np.asarray(available), kind="stable")
    steps = np.arange(len(order)) / max(len(order) - 1, 1)
    kept = np.zeros(len(order), np.int64)
    kept[order] = np.round(most * (least / most) ** steps).astype(np.int64)
    short = [(int(wanted), there) for wanted, there in zip(kept, available, strict=True) if wanted > there]
    if short:
        wanted, there = short[0]
        raise UserError(f"--most {most}: a class would have to keep {wanted} images and has {there}; choose less")
    return kept.tolist()


def rows(root: Path, least: int, most: int, seed: int) -> list[tuple[str, str, str]]:
    """Returns file (below ``root``), label and split of each image that is kept."""
    found = []
    for split in SPLIT_FOLDERS:
        if split != "train" and not has_split(root, split):
            continue
        images = open_folder(FolderData(source="folder", root=root), split)
        chosen = np.arange(len(images))
        if split == "train":
            sizes = tail_sizes(class_counts(images).tolist(), least, most)
            kept = [
                generator(seed, "long tail", number).permutation(np.flatnonzero(images.labels == number))[:size]
                for number, size in enumerate(sizes)
            ]
            chosen = np.sort(np.concatenate(kept))
        folder = images.root.relative_to(root)
        labels = [images.classes[number] for number in images.labels[chosen]]
        names = [str(folder / images.name(index)) for index in chosen.tolist()]
        found += [(name, label, split) for name, label in zip(names, labels, strict=True)]
    return found


def _check_output(output: Path) -> None:
    """Raises a UserError if ``output`` is there and is no earlier list, but perhaps a picture or another table."""
    if output.is_file() and not is_stream(output):
        with output.open("rb") as file:
            if file.readline(100).rstrip() != csv_bytes(HEADER, []).rstrip():
                raise UserError(f"--output: {output} is there already and holds no such list; name another file")


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the file and says what is in it. Returns 0, or 2 for input that is wrong."""
    parser = command_parser(
        "python -m tools.long_tail",
        "Lists a part of a data set's images, so that the sizes of its classes fall by equal factors, in a CSV file.",
        ["python -m tools.long_tail --root data/clothing --output data/long_tail.csv --least 8 --most 700"],
    )
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="class folders: DIR/train/CLASS, …")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the CSV file to write")
    parser.add_argument("--least", type=int, default=8, metavar="N", help="images of the smallest class (default: 8)")
    parser.add_argument("--most", type=int, default=700, metavar="N", help="images of the largest class (default: 700)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="decides which images are kept (default: 0)")
    options = parser.parse_args(arguments)

    def command() -> int:
        if not 1 <= options.least <= options.most:
            raise UserError(f"--least {options.least} --most {options.most}: must be 1 <= least <= most")
        _check_output(options.output)
        kept = rows(options.root, options.least, options.most, options.seed)
        try:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(options.output, csv_bytes(HEADER, kept))
        except OSError as error:
            raise UserError(f"--output: {options.output} cannot be written: {error.strerror}") from None
        sizes = np.unique([label for _, label, split in kept if split == "train"], return_counts=True)
        print(", ".join(f"{label} {count}" for label, count in zip(*sizes, strict=True)))
        return 0

    return exit_code(command)


if __name__ == "__main__":
    sys.exit(main())
