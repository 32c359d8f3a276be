"""What `tools.pack` packs: image files of a split in their order, and what is known of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data.names import Names
from engine.datasets.labelled import FileImages, LabelledImages
from engine.errors import UserError

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray]


@dataclass(frozen=True)
class Packable:
    """N image files."""

    kind: str
    """``image`` with labels, or ``boxes``."""
    names: Names
    path: Callable[[int], Path]
    """Returns the file of an image."""
    label: Callable[[int], tuple[str, bytes] | None]
    """Returns what is put beside an image for readers of WebDataset: ending and content."""
    arrays: Arrays
    """What the index says, besides where each image lies."""
    facts: dict[str, Any]
    resized: Callable[[Arrays, NDArray[np.int64]], Arrays] = lambda arrays, sizes: arrays
    """Returns ``arrays`` for images of other sizes, (N, 2) widths and heights."""
    sizes: NDArray[np.int64] | None = None
    """(N, 2) widths and heights that the images must have, where what is known of them is in their pixels."""


def packable(open_split: Callable[[str], LabelledImages]) -> Mapping[str, Packable]:
    """Returns train, val and, if there is one, test of labelled images; ``open_split`` opens a split.

    Raises:
        UserError: they are not there, or not in files of their own.
    """
    opened = {split: open_split(split) for split in ("train", "val")}
    try:
        opened["test"] = open_split("test")
    except UserError as error:  # there is none, mostly
        log.info("test is not packed: %s", error)
    return {split: _packable(images) for split, images in opened.items()}


def _packable(images: LabelledImages) -> Packable:
    if not isinstance(images, FileImages):
        raise UserError("data.source: only images that lie in files of their own can be packed")
    if images.missing:
        raise UserError(images.missing)

    def label(index: int) -> tuple[str, bytes]:
        if images.multi_label:
            return ".json", json.dumps({"labels": images.labels[index].tolist()}).encode()
        return ".cls", str(images.labels[index]).encode()

    places = images.places
    arrays: Arrays = {"content": places.content, "starts": places.starts, "labels": images.labels}
    facts = {"classes": images.classes, "digest_of_names": images.digest_of_names}
    return Packable("image", places, images.path, label, arrays, facts)
