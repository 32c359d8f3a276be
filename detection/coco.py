"""Data sets in COCO's format: a JSON file becomes arrays, and whatever is wrong in it a list of findings."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from detection.annotations import Annotations
from detection.coco_boxes import read_annotations
from detection.coco_records import Record, read_categories, read_pictures
from detection.data_config import CocoData, SplitFiles
from detection.findings import Finding, Findings, first_causes
from engine.errors import UserError
from engine.pictures import read_picture


class CocoPictures:
    """One split. Names are kept as one array of bytes: workers that read Python objects would copy them."""

    def __init__(self, folder: Path, names: Sequence[str], annotations: Annotations) -> None:
        self.annotations = annotations
        self.folder = folder
        encoded = [os.fsencode(name) for name in names]
        self._names = np.frombuffer(b"".join(encoded), np.uint8)
        self._ends = np.cumsum([0, *(len(name) for name in encoded)])

    def __len__(self) -> int:
        return len(self.annotations)

    def name(self, index: int) -> str:
        return os.fsdecode(self._names[self._ends[index] : self._ends[index + 1]].tobytes())

    def path(self, index: int) -> Path:
        return self.folder / self.name(index)

    def picture(self, index: int) -> Image.Image:
        """The picture, upright.

        Raises:
            UserError: it cannot be read, or has another size than its annotations are for.
        """
        picture = read_picture(self.path(index))
        width, height = self.annotations.sizes[index].tolist()
        if picture.size != (width, height):
            raise UserError(
                f"{self.path(index)}: the picture has {picture.width} x {picture.height} pixels, but its annotations "
                f"are for {width} x {height}; correct width and height in the JSON file, or the picture"
            )
        return picture


def split_files(config: CocoData, split: str) -> tuple[Path, Path]:
    """The folder of pictures and the annotation file of ``split``.

    Raises:
        UserError: the split is not configured, or one of them is not there.
    """
    files: SplitFiles | None = getattr(config, split)
    if files is None:
        raise UserError(f"data.{split}: is not set; give it images and annotations")
    folder, file = config.root / files.images, config.root / files.annotations
    if not folder.is_dir():
        raise UserError(f"data.{split}.images: there is no folder {folder}")
    if not file.is_file():
        raise UserError(f"data.{split}.annotations: there is no file {file}")
    return folder, file


def read_split(config: CocoData, split: str) -> tuple[CocoPictures, list[Finding]]:
    """The pictures of ``split`` and what is wrong with them.

    Labels number the categories in the order of their ids. Boxes without area, with numbers that are none, outside
    their picture, far out of it or of pictures that are not listed are left out; the others are kept as they are, even
    if they reach out of their picture. Pictures without boxes stay. Where a finding is fatal the result must not be
    trained on.

    Raises:
        UserError: files are missing or are not COCO JSON.
    """
    folder, file = split_files(config, split)
    document = _load(file)
    findings = Findings(str(file))
    category_ids, classes = read_categories(document["categories"], findings)
    pictures, faulty = read_pictures(document["images"], folder, findings)
    annotations = read_annotations(document["annotations"], pictures, faulty, category_ids, classes, findings)
    names = [picture["file_name"] for picture in pictures]
    return CocoPictures(folder, names, annotations), first_causes(findings.found)


def _load(file: Path) -> dict[str, list[Record]]:
    """The three lists. Outlines of objects are dropped while reading, since they are most of what COCO's files hold."""

    def without_outlines(record: Record) -> Record:
        record.pop("segmentation", None)
        return record

    try:
        document = json.loads(file.read_bytes(), object_hook=without_outlines)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: is no JSON file ({' '.join(str(error).split())})") from None
    for key in ("images", "annotations", "categories"):
        records = document.get(key) if isinstance(document, dict) else None
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise UserError(f"{file}: is no COCO file: it needs a list of objects '{key}'")
    return document
