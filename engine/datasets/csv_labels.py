"""Images that CSV files list, with a class each or several."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from engine.datasets.csv_listing import NAMED, Listing, read_listing
from engine.datasets.holdout import HOW_TO_HOLD_OUT, part
from engine.datasets.labelled import FileImages, class_counts, some
from engine.datasets.sections import CsvData
from engine.errors import UserError

log = logging.getLogger(__name__)

TRUTH = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
"""What a column of one class may say, in any case."""


def open_csv(config: CsvData, split: str, known: list[str] | None = None) -> FileImages:
    """Opens the images of ``split``: train, val or test. All rows are checked, whichever split they are of.

    Classes are numbered in sorted order of the training images' class names (as numbers, if all are), in the order of
    ``config.classes`` or of several label columns. Where no row is for training, they are those that are ``known``, if
    any are.

    Raises:
        UserError: a table or a column is missing, a row contradicts itself or another, a class is unknown or without
            training images, or the split is not there.
    """
    listing, repeated = read_listing(config)
    splits = np.array(listing.splits)
    there = set(listing.splits)
    trains = "train" in there
    if split == ("train" if trains else min(there)):  # once, not for each split that is opened
        if repeated:
            log.warning("data.csv: rows that repeat others and count once: %d", repeated)
        if listing.swallowed:
            text = (
                "data.csv: rows with a cell in quotes that reads like rows of its own: %d; the first ends in %s; is a "
            )
            log.warning(text + "quote not closed?", len(listing.swallowed), listing.swallowed[0])
    if not trains and (known is None or split not in there):
        raise UserError(f"data.csv: no row is for training; the splits found: {', '.join(sorted(there))}")
    if config.val_fraction is not None and "val" in there:
        raise UserError("data.val_fraction: the table has a val of its own; set data.val_fraction=null")
    wanted = "train" if config.val_fraction is not None and split == "val" else split
    if wanted not in there:
        advice = f"; or {HOW_TO_HOLD_OUT}" if split == "val" else ""
        raise UserError(
            f"data.csv: no row is for {split}; name a data.split_column that says so, or a table of its own "
            f"(data.csv={{train: ..., {split}: ...}}){advice}"
        )
    classes, labels = _labels(config, listing, None if trains else known)
    images = FileImages(config.root, classes, labels, listing.paths)
    counts = class_counts(images.subset(np.flatnonzero(splits == "train")))
    without = [classes[number] for number in np.flatnonzero(counts == 0)]
    if trains and without:
        raise UserError(
            f"data: {len(without)} of {len(classes)} classes have no training images: {some(without)}; add some, or "
            f"take them out of data.{'classes' if len(config.label_columns) == 1 else 'label_columns'}"
        )
    chosen = images.subset(np.flatnonzero(splits == wanted))
    return chosen if config.val_fraction is None or split == "test" else part(chosen, config, split)


def _labels(config: CsvData, listing: Listing, known: list[str] | None) -> tuple[list[str], NDArray[np.integer]]:
    """Returns the classes, and of each row its class number, (N,) int64, or what it shows, (N, C) uint8.

    ``known``: the classes where no row is for training.
    """
    columns = config.label_columns
    if len(columns) > 1:
        labels = np.empty((len(listing.paths), len(columns)), np.uint8)
        for k, (name, cells) in enumerate(zip(columns, listing.labels, strict=True)):
            listing.check(name, cells, lambda cell: cell.lower() in TRUTH, "0 or 1")
            labels[:, k] = [TRUTH[cell.lower()] for cell in cells]
        return columns, labels
    cells, separator = listing.labels[0], config.label_separator
    missing = ("nan", "") if separator is None else ("nan",)
    listing.check(columns[0], cells, lambda cell: cell.lower() not in missing, "the name of a class")
    if separator is None:
        sets = [[cell] for cell in cells]
    else:
        sets = [[name for name in map(str.strip, cell.split(separator)) if name] for cell in cells]
    trained = (name for split, own in zip(listing.splits, sets, strict=True) if split == "train" for name in own)
    classes = config.classes or known or class_order(trained)
    number = {name: k for k, name in enumerate(classes)}
    whose = "the model was not trained on it" if known else "the training images show no such class"
    _check_known(listing, sets, number, "data.classes names no such class" if config.classes else whose)
    if separator is None:
        return classes, np.array([number[cell] for cell in cells], np.int64)
    labels = np.zeros((len(sets), len(classes)), np.uint8)
    for row, own in enumerate(sets):
        labels[row, [number[name] for name in own]] = 1
    return classes, labels


def class_order(names: Iterable[str]) -> list[str]:
    """Returns different class names in sorted order: as numbers if all are, else as text."""
    different = sorted(set(names))
    try:
        values = {name: float(name) for name in different}
    except ValueError:
        return different
    return sorted(different, key=values.__getitem__) if all(map(math.isfinite, values.values())) else different


def _check_known(listing: Listing, sets: list[list[str]], number: dict[str, int], reason: str) -> None:
    unknown: dict[str, list[int]] = {}
    for row, own in enumerate(sets):
        for name in own:
            if name not in number:
                unknown.setdefault(name, []).append(row)
    if not unknown:
        return
    lines = []
    for name, where in list(unknown.items())[:NAMED]:
        near = difflib.get_close_matches(name, number, 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        place, split = listing.place(where[0]), listing.splits[where[0]]
        lines.append(f"{place}: unknown class '{name}' ({split}; {len(where)} rows in all){hint}")
    if len(unknown) > NAMED:
        lines.append(f"and {len(unknown) - NAMED} more classes")
    raise UserError("\n".join([*lines, f"{reason}; there are {len(number)}: {some(list(number))}"]))
