"""The start of a run on many images: a listing, and the next start, with its index, beside torchvision's data sets.

Each is measured in a process of its own: seconds and those of CPU, the memory that it needs besides, at most and in the
end but for mapped files, which a node has once, and the folders that it lists; also for another rank, which is told of
rank 0's index. And for four workers, how much their memory and that of their parent grows while each image is named
once (PSS).
"""

from __future__ import annotations

import csv
import gc
import itertools
import json
import multiprocessing
import os
import pickle
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from PIL import Image

from detection.data.coco import read_split
from detection.data.sections import CocoData
from engine.data.batch_plan import Draw
from engine.data.index import CACHE, SETTLED_SECONDS, forget
from engine.data.workers import WorkerSettings, read_batches
from engine.datasets.dataset import open_images
from engine.datasets.labelled import FileImages, LabelledImages, digests
from engine.datasets.sections import CsvData, FolderData
from tools.bench.timing import Table, interleaved

FILES_A_FOLDER = 1280
LINKS = 60_000
"""Names of one file; file systems allow some more."""
OUTLINE = [[round(100 + 1.37 * number, 2) for number in range(40)]]
"""Of each object, as long as COCO's are in the mean."""


@dataclass(frozen=True)
class Size:
    """Amounts of a measurement."""

    folders: int
    coco_images: int
    rounds: int
    workers: int = 4


FULL, QUICK = Size(folders=1000, coco_images=118_000, rounds=3), Size(folders=2, coco_images=20, rounds=1, workers=1)
FIGURES = ("seconds", "CPU seconds", "MB at most", "MB in the end", "folders listed")
"""Of each way to open data."""
OBJECTS = 7
"""Annotations of an image, nearly COCO's mean."""


def run(quick: bool = False) -> Table:
    """Runs the benchmark; ``quick``: few images, one round."""
    size = QUICK if quick else FULL
    multiprocessing.set_start_method("fork", force=True)
    with tempfile.TemporaryDirectory() as place, patch.dict(os.environ, {CACHE: os.path.join(place, "cache")}):
        root = Path(place)
        write_files(root, size)
        write_coco(root, size.coco_images)
        time.sleep(SETTLED_SECONDS + 0.5)
        work: dict[tuple[str, str], Callable[[], float]] = {}
        for name, opening in openings(root).items():
            first = Apart(opening, before=partial(forget_all, root))
            ways = {"first start": first, "with the index": Apart(opening)}
            sent = list[bytes]()
            ways["another rank"] = Apart(partial(_received, sent), before=partial(_sent, sent, opening))
            if (peer := peers(root).get(name)) is not None:
                ways["torchvision"] = Apart(peer)
            for what in FIGURES:
                work |= {(f"{name}: {what}", way): partial(apart, what) for way, apart in ways.items()}
        for column, opened in (("with the index", openings(root)["folders"]), ("torchvision", peers(root)["folders"])):
            growth = Apart(partial(named_once, opened, size.workers))
            work["folders, workers: PSS grows by %", column] = partial(growth, "PSS")
        count = size.folders * FILES_A_FOLDER
        title = f"The start on {count} images in {size.folders} folders, in a table, and {size.coco_images} of COCO"
        return Table("start", title, "each as it says", interleaved(work, size.rounds))


def _sent(sent: list[bytes], opening: Callable[[], Any]) -> None:
    sent[:] = [pickle.dumps(opening(), 5)]


def _received(sent: list[bytes]) -> Any:
    return pickle.loads(sent[0])


def forget_all(root: Path) -> None:
    """Removes all indices."""
    for data in ("images", "coco"):
        forget(root / data)


def write_files(root: Path, size: Size) -> None:
    """Writes class folders of many names of few files, and a table of the same."""
    with (root / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        names = ((f"n{folder:08d}", number) for folder in range(size.folders) for number in range(FILES_A_FOLDER))
        for count, (folder, number) in enumerate(names):
            for split in ("train", *(["val"] if number == 0 else [])):
                path = root / "images" / split / folder / f"{folder}_{number}.JPEG"
                if number == 0:
                    path.parent.mkdir(parents=True)
                os.link(_source(root, count // LINKS), path)
                writer.writerow([path.relative_to(root / "images"), folder, split])


def _source(root: Path, number: int) -> Path:
    file = root / f"source_{number}.jpg"
    if not file.exists():
        Image.new("RGB", (64, 48), (number % 256, 0, 0)).save(file)
    return file


def write_coco(root: Path, count: int) -> None:
    """Writes COCO's files of a train and a small val, with outlines."""
    outline = json.dumps(OUTLINE)
    for split, images in (("train", count), ("val", max(1, count // 24))):
        folder = root / "coco" / split
        folder.mkdir(parents=True)
        with (root / "coco" / f"{split}.json").open("w", encoding="utf-8") as file:
            file.write('{"info": {}, "licenses": [], "images": [')
            for number in range(images):
                os.link(_source(root, 1000 + number // LINKS + (split == "val") * 100), folder / f"{number:012d}.jpg")
                comma = ", " if number else ""
                keys = {"license": 1, "file_name": f"{number:012d}.jpg", "height": 48, "width": 64, "id": number}
                file.write(comma + json.dumps({**keys, "coco_url": f"http://images/{number:012d}.jpg"}))
            file.write('], "annotations": [')
            for number in range(images * OBJECTS):
                comma = ", " if number else ""
                box = f'"image_id": {number // OBJECTS}, "bbox": [{number % 40}.5, 3.25, 12.01, 20.5], "category_id": 1'
                file.write(f'{comma}{{"segmentation": {outline}, "area": 81.5, "iscrowd": 0, {box}, "id": {number}}}')
            file.write('], "categories": [{"supercategory": "animal", "id": 1, "name": "ant"}]}')


def openings(root: Path) -> dict[str, Callable[[], Any]]:
    """Returns what opens train and val as a run does, by the name of their layout."""
    folder = FolderData(source="folder", root=root / "images")
    columns: dict[str, Any] = {"path_column": "path", "label_columns": ["label"], "split_column": "split"}
    table = CsvData(source="csv", root=root / "images", csv=root / "table.csv", **columns)
    files: dict[str, Any] = {name: {"images": name, "annotations": f"{name}.json"} for name in ("train", "val")}
    coco = CocoData(source="coco", root=root / "coco", **files)

    def labelled(data: FolderData | CsvData) -> LabelledImages:
        opened = {split: open_images(data, split) for split in ("val", "train")}
        for images in opened.values():
            digests(images)
        return opened["train"]

    def annotated() -> Any:
        return [read_split(coco, split)[0] for split in ("val", "train")]

    return {"folders": partial(labelled, folder), "table": partial(labelled, table), "COCO": annotated}


def peers(root: Path) -> dict[str, Callable[[], Any]]:
    """Returns what torchvision has for these layouts."""
    from torchvision.datasets import CocoDetection, ImageFolder

    images, coco = root / "images", root / "coco"
    return {
        "folders": lambda: [ImageFolder(str(images / split)) for split in ("val", "train")][-1],
        "COCO": lambda: [CocoDetection(str(coco / split), str(coco / f"{split}.json")) for split in ("val", "train")],
    }


class Apart:
    """Measures a call in a fork, all at once, whichever figure of it is asked for first."""

    def __init__(self, call: Callable[[], Any], before: Callable[[], Any] = lambda: None) -> None:
        self._call, self._before, self._found = call, before, dict[str, float]()

    def __call__(self, what: str) -> float:
        if what not in self._found:
            self._before()
            ours, theirs = multiprocessing.Pipe(duplex=False)
            process = multiprocessing.Process(target=_measured, args=(self._call, theirs))
            process.start()
            theirs.close()
            self._found = ours.recv()
            process.join()
        return self._found.pop(what)


def _measured(call: Callable[[], Any], to: Any) -> None:
    listed, scandir, listdir = [0], os.scandir, os.listdir

    def counted(function: Callable[..., Any], *arguments: Any) -> Any:
        listed[0] += 1
        return function(*arguments)

    os.scandir, os.listdir = partial(counted, scandir), partial(counted, listdir)
    Path("/proc/self/clear_refs").write_text("5")
    before, own, begin, start = _status("VmRSS"), _status("RssAnon"), time.perf_counter(), _cpu_seconds()
    made = call()
    found = {"CPU seconds": _cpu_seconds() - start, "seconds": time.perf_counter() - begin}
    found |= {"MB at most": (_status("VmHWM") - before) / 1e6, "MB in the end": (_status("RssAnon") - own) / 1e6}
    to.send({**found, "folders listed": float(listed[0]), "PSS": made if isinstance(made, float) else 0.0})
    to.close()


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class _Named:
    """Names images, and says their classes, as reading them would first."""

    def __init__(self, images: Any) -> None:
        self._images = images

    def __getitem__(self, draw: Draw) -> int:
        if isinstance(self._images, FileImages):
            return len(self._images.name(draw.index)) + int(self._images.labels[draw.index])
        path, label = self._images.samples[draw.index]
        return len(path) + label


def named_once(opened: Callable[[], Any], workers: int, batch: int = 256) -> float:
    """Returns by how many per cent the memory of this process and its workers has grown when all images are named."""
    images = opened()
    count = len(images)

    def batches() -> Iterator[list[Draw]]:
        for first in range(0, count, batch):
            yield [Draw(index, 0, index) for index in range(first, min(first + batch, count))]

    first = last = 0
    reading = read_batches(_Named(images), batches(), WorkerSettings(workers))
    begun = list(itertools.islice(reading, 2 * workers))
    del begun[:]
    gc.collect()  # what all have begun with is marked once, and copied for that
    for _ in _some(reading):
        last = _pss()
        first = first or last
    return 100 * (last / first - 1)


def _some(batches: Iterable[Any]) -> Iterator[Any]:
    """Yields after the first batch and every thousandth: looking at memory takes long."""
    for number, batch in enumerate(batches):
        if number % 1000 == 0:
            yield batch


def _pss() -> int:
    """Returns the memory of this process and its children, pages that several have counted in shares."""
    children = [str(child.pid) for child in multiprocessing.active_children()]
    lines = [line for pid in ("self", *children) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
