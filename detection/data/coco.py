"""Data sets in COCO's format: a JSON file becomes arrays, and whatever is wrong in it a list of findings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detection.data.annotations import Annotations
from detection.data.coco_boxes import OUTLINED, read_annotations
from detection.data.coco_records import Record, read_categories, read_images
from detection.data.issues import Finding, Findings, first_causes
from detection.data.sections import CocoData, SplitFiles
from engine.data.names import Names
from engine.data.read_ahead import FileReader
from engine.errors import UserError
from engine.files import is_file, is_folder, other_than_file
from engine.images.lazy_image import LazyImage, load_image


class CocoImages:
    """One split: no Python object for any image, but arrays that processes share."""

    def __init__(self, folder: Path, names: Iterable[str], annotations: Annotations) -> None:
        self.annotations = annotations
        self.folder = folder
        self._names = Names(names)
        self._reader = FileReader()

    def __len__(self) -> int:
        return len(self.annotations)

    def name(self, index: int) -> str:
        return self._names[index]

    def path(self, index: int) -> Path:
        return self.folder / self.name(index)

    @property
    def wait_seconds(self) -> float:
        return self._reader.wait_seconds

    def announce(self, indices: Iterable[int], threads: int) -> None:
        self._reader.announce(map(self.path, indices), threads)

    def image(self, index: int) -> LazyImage:
        """Loads an image, upright.

        Raises:
            UserError: it cannot be read, or has another size than its annotations are for.
        """
        path = self.path(index)
        image = load_image(path, self._reader.read(path))
        width, height = self.annotations.sizes[index].tolist()
        if image.size != (width, height):
            raise UserError(
                f"{path}: the image has {image.width} x {image.height} pixels, but its annotations "
                f"are for {width} x {height}; correct width and height in the JSON file, or the image"
            )
        return image


def split_files(config: CocoData, split: str) -> tuple[Path, Path]:
    """Returns the folder of images and the annotation file of ``split``.

    Raises:
        UserError: the split is not configured, or one of them is not there.
    """
    files: SplitFiles | None = getattr(config, split)
    if files is None:
        raise UserError(f"data.{split}: is not set; give it images and annotations")
    folder, file = config.root / files.images, config.root / files.annotations
    if not is_folder(folder):
        raise UserError(f"data.{split}.images: there is no folder {folder}")
    if not is_file(file):
        kind = other_than_file(file)
        raise UserError(f"data.{split}.annotations: there is no file {file}" + f" (it is {kind})" * bool(kind))
    return folder, file


def read_split(config: CocoData, split: str) -> tuple[CocoImages, list[Finding]]:
    """Returns the images of ``split`` and what is wrong with them.

    Labels number the categories in the order of their ids. Boxes without area, with numbers that are none, outside
    their image, far out of it or of images that are not listed are left out; the others are kept as they are, even
    if they reach out of their image. Images without boxes stay. Where a finding is fatal the result must not be
    trained on.

    Raises:
        UserError: files are missing or are not COCO JSON.
    """
    folder, file = split_files(config, split)
    document = _load(file)
    findings = Findings(str(file))
    category_ids, classes = read_categories(document["categories"], findings)
    folders = [config.root / files.images for files in (config.train, config.val, config.test) if files is not None]
    images, faulty = read_images(document["images"], folder, folders.count(folder) == 1, findings)
    annotations = read_annotations(document["annotations"], images, faulty, category_ids, classes, findings)
    names = [image["file_name"] for image in images]
    return CocoImages(folder, names, annotations), first_causes(findings.found)


def _load(file: Path) -> dict[str, list[Record]]:
    """The three lists. Outlines of objects are dropped while reading, since they are most of what COCO's files hold."""

    def without_outlines(pairs: list[tuple[str, Any]]) -> Record:
        record = dict(pairs)
        if len(record) < len(pairs):
            twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            raise ValueError(f"an object has the key {twice!r} more than once")
        if record.pop("segmentation", None) and not record.get("bbox"):
            record[OUTLINED] = True
        return record

    try:
        document = json.loads(file.read_bytes(), object_pairs_hook=without_outlines)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: is no JSON file ({' '.join(str(error).split())})") from None
    for key in ("images", "annotations", "categories"):
        records = document.get(key) if isinstance(document, dict) else None
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise UserError(f"{file}: is no COCO file: it needs a list of objects '{key}'")
    return document
