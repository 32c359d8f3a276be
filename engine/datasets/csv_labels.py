"""Images that CSV files list, with a class each or several."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from engine.datasets.csv_listing import NAMED, Listing, read_listing
from engine.datasets.holdout import HOW_TO_HOLD_OUT, part
from engine.datasets.labelled import FileImages, some
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
    listing, rows = read_listing(config)
    there, splits = listing.splits.different, listing.splits.rows[rows]
    trains = "train" in there
    if split == ("train" if trains else min(there)):  # once, not for each split that is opened
        if len(rows) < len(listing.paths):
            log.warning("data.csv: rows that repeat others and count once: %d", len(listing.paths) - len(rows))
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
    trained = rows[splits == there.index("train")] if trains else rows[:0]
    classes, labels_of = _labels(config, listing, rows, trained, None if trains else known)
    shown = labels_of(trained)
    counts = shown.sum(axis=0) if shown.ndim == 2 else np.bincount(shown, minlength=len(classes))
    without = [classes[number] for number in np.flatnonzero(counts == 0)]
    if trains and without:
        raise UserError(
            f"data: {len(without)} of {len(classes)} classes have no training images: {some(without)}; add some, or "
            f"take them out of data.{'classes' if len(config.label_columns) == 1 else 'label_columns'}"
        )
    rows = rows[splits == there.index(wanted)]
    chosen = FileImages(config.root, classes, labels_of(rows), listing.paths.take(rows))
    return chosen if config.val_fraction is None or split == "test" else part(chosen, config, split)


def _labels(
    config: CsvData, listing: Listing, rows: NDArray[np.int64], trained: NDArray[np.int64], known: list[str] | None
) -> tuple[list[str], Callable[[NDArray[np.int64]], NDArray[np.integer]]]:
    """Returns the classes, and what gives rows' class numbers, (N,) int64, or what they show, (N, C) uint8.

    Args:
        config: What is asked for.
        listing: What the tables say.
        rows: Those that count.
        trained: Those of them that are for training.
        known: The classes where none is.
    """
    columns = config.label_columns
    if len(columns) > 1:
        for name, column in zip(columns, listing.labels, strict=True):
            listing.check(name, column, lambda cell: cell.lower() in TRUTH, "0 or 1")
        truths = [np.array([TRUTH[cell.lower()] for cell in own.different], np.uint8) for own in listing.labels]
        pairs = list(zip(truths, listing.labels, strict=True))
        return columns, lambda rows: np.stack([truth[column.rows[rows]] for truth, column in pairs], axis=1)
    column, separator = listing.labels[0], config.label_separator
    missing = ("nan", "") if separator is None else ("nan",)
    listing.check(columns[0], column, lambda cell: cell.lower() not in missing, "the name of a class")
    if separator is None:
        sets = [[cell] for cell in column.different]
    else:
        sets = [[name for name in map(str.strip, cell.split(separator)) if name] for cell in column.different]
    classes = config.classes or known
    classes = classes or class_order(name for code in np.unique(column.rows[trained]) for name in sets[code])
    number = {name: k for k, name in enumerate(classes)}
    whose = "the model was not trained on it" if known else "the training images show no such class"
    _check_known(listing, rows, sets, number, "data.classes names no such class" if config.classes else whose)
    if separator is None:
        table = np.array([number[cell] for cell in column.different], np.int64)
    else:
        table = np.zeros((len(sets), len(classes)), np.uint8)
        for code, own in enumerate(sets):
            table[code, [number[name] for name in own]] = 1
    return classes, lambda rows: table[column.rows[rows]]


def class_order(names: Iterable[str]) -> list[str]:
    """Returns different class names in sorted order: as numbers if all are, else as text."""
    different = sorted(set(names))
    try:
        values = {name: float(name) for name in different}
    except ValueError:
        return different
    return sorted(different, key=values.__getitem__) if all(map(math.isfinite, values.values())) else different


def _check_known(
    listing: Listing, rows: NDArray[np.int64], sets: list[list[str]], number: dict[str, int], reason: str
) -> None:
    """Raises UserError if classes have no number, naming the first rows; ``sets``: those of each different cell."""
    unknown: dict[str, list[int]] = {}
    for code, own in enumerate(sets):
        for name in own:
            if name not in number:
                unknown.setdefault(name, []).append(code)
    if not unknown:
        return
    lines, codes = [], listing.labels[0].rows[rows]
    for name, own_codes in list(unknown.items())[:NAMED]:
        near = difflib.get_close_matches(name, number, 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        where = rows[np.isin(codes, own_codes)]
        place, split = listing.place(where[0]), listing.splits[where[0]]
        lines.append(f"{place}: unknown class '{name}' ({split}; {len(where)} rows in all){hint}")
    if len(unknown) > NAMED:
        lines.append(f"and {len(unknown) - NAMED} more classes")
    raise UserError("\n".join([*lines, f"{reason}; there are {len(number)}: {some(list(number))}"]))
