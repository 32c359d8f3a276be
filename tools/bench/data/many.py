"""The start on fourteen million images whose index is there, the order of an epoch, and one in which each is named."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from engine.data.batch_plan import NaturalOrder
from engine.data.index import SETTLED_SECONDS
from engine.datasets.labelled import FileImages, digests, indexed
from tools.bench.data.start import FIGURES, Apart, named_once
from tools.bench.timing import Table, interleaved, timed

FILES_A_FOLDER = 650
FOLDERS, FEW = 21_841, 20
"""Of ImageNet-21k, and to see that it runs."""
BATCH = 4096


def run(quick: bool = False) -> Table:
    """Runs the benchmark; ``quick``: few images, one round."""
    folders, workers, rounds = (FEW, 1, 1) if quick else (FOLDERS, 4, 3)
    count = folders * FILES_A_FOLDER
    multiprocessing.set_start_method("fork", force=True)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for number in range(folders):
            (root / "train" / f"n{number:08d}").mkdir(parents=True)
        time.sleep(SETTLED_SECONDS + 0.5)
        opening = partial(opened, root, folders)
        first = Apart(opening)
        first("CPU seconds")  # makes the index
        start = Apart(opening)
        work: dict[tuple[str, str], Callable[[], float]] = {(what, "ours"): partial(start, what) for what in FIGURES}
        order = timed(lambda: NaturalOrder(count, 0)(1))
        work["order of an epoch: seconds", "ours"] = lambda: order() / 1000
        samples = interleaved(work, rounds)
        growth = Apart(partial(named_once, opening, workers, BATCH))("PSS")
        samples[f"{workers} workers: PSS grows by %"] = {"ours": [growth]}
    return Table(
        "many", f"The start on {count} images in {folders} folders, with their index", "each as it says", samples
    )


def opened(root: Path, folders: int) -> FileImages:
    """Opens images of which nothing but their folders is there, as a run opens class folders."""

    def listing(watched: list[str]) -> FileImages:
        classes = [f"n{number:08d}" for number in range(folders)]
        watched += [os.path.join(root, "train", name) for name in classes]
        names = (f"{name}/{name}_{number}.JPEG" for name in classes for number in range(FILES_A_FOLDER))
        return FileImages(root / "train", classes, np.repeat(np.arange(folders), FILES_A_FOLDER), names)

    images = indexed(root, "many", listing)
    digests(images)
    return images
