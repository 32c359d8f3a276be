"""Data sets in COCO's format: a JSON file becomes arrays, and whatever is wrong in it a list of findings."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.data.annotations import Annotations
from detection.data.coco_boxes import read_annotations
from detection.data.coco_json import load
from detection.data.coco_records import read_categories, read_images
from detection.data.issues import Finding, Findings, first_causes, forgiven
from detection.data.sections import CocoData, SplitFiles
from engine.data.file_check import InFiles
from engine.data.index import FromIndex, Listed, listed
from engine.data.names import Names
from engine.data.read_ahead import FileReader
from engine.data.shards import Piece, Shards
from engine.datasets.shard_images import INDEX, read_packed
from engine.errors import UserError
from engine.files import is_file, is_folder, other_than_file
from engine.images.lazy_image import LazyImage, load_image
from engine.task.packing import Arrays, Packable

ARRAYS = ("image_ids", "sizes", "starts", "boxes", "labels", "crowd", "areas")
"""Those of :class:`detection.data.annotations.Annotations`."""


class CocoImages(FromIndex, InFiles):
    """One split: no Python object for any image, but arrays that processes share."""

    def __init__(self, folder: Path, names: Names, annotations: Annotations, shards: Shards | None = None) -> None:
        self.annotations = annotations
        self.folder = folder
        self.shards = shards
        self.names = names
        self._reader = FileReader() if shards is None else FileReader(read=shards.read)

    @classmethod
    def of(cls, known: Listed) -> CocoImages:
        arrays, facts = {name: known.arrays[name] for name in ARRAYS}, known.facts
        if facts["texts"]:
            width = arrays["image_ids"].shape[1]
            arrays["image_ids"] = np.ascontiguousarray(arrays["image_ids"]).view(f"<U{width}")[:, 0]
        annotations = Annotations(facts["classes"], facts["category_ids"], **arrays)
        names = Names.of(known.arrays["content"], known.arrays["starts_of_names"])
        shards = Shards.of(known) if "shards" in facts else None
        folder = Path(facts["folder"]) if shards is None else shards.folder
        images = cls(folder, names, annotations, shards)
        images.index = known
        return images

    def __len__(self) -> int:
        return len(self.annotations)

    def name(self, index: int) -> str:
        return self.names[index]

    def path(self, index: int) -> Path:
        return self.folder / self.name(index) if self.shards is None else self.shards.path(index, self.name(index))

    @property
    def wait_seconds(self) -> float:
        return self._reader.wait_seconds

    def announce(self, indices: Iterable[int], threads: int) -> None:
        self._reader.announce(map(self._place, indices), threads)

    def _place(self, index: int) -> Path | Piece:
        return self.path(index) if self.shards is None else self.shards.piece(index)

    def image(self, index: int) -> LazyImage:
        """Loads an image, upright.

        Raises:
            UserError: it cannot be read, or has another size than its annotations are for.
        """
        content = self._reader.read(self._place(index))
        path = self.path(index)  # of shards, that of the copy which has just been read
        image = load_image(path, content)
        width, height = self.annotations.sizes[index].tolist()
        if image.size != (width, height):
            raise UserError(
                f"{path}: the image has {image.width} x {image.height} pixels, but its annotations "
                f"are for {width} x {height}; correct width and height in the JSON file, or the image"
            )
        return image


def open_packed(root: Path, split: str) -> CocoImages:
    """Opens what tools.pack has made of a split.

    Raises:
        UserError: it is not there, or not all of it.
    """
    known = read_packed(root, split, "boxes")
    if known is None:
        raise UserError(f"data.root: {root} has no {INDEX.format(split)}; python -m tools.pack makes it")
    images = CocoImages.of(known)
    assert images.shards is not None
    images.shards.check()
    return images


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
    folders = [config.root / files.images for files in (config.train, config.val, config.test) if files is not None]
    alone = folders.count(folder) == 1
    key = ["coco", os.fspath(folder), os.fspath(file), alone]
    known = listed(config.root, key, partial(_listed, folder, file, alone))
    findings = [Finding(**{**finding, "ids": tuple(finding["ids"])}) for finding in known.facts["findings"]]
    return CocoImages.of(known), forgiven(findings, config.max_unreadable) if split == "train" else findings


def _listed(folder: Path, file: Path, alone: bool) -> Listed:
    document = load(file)
    findings = Findings(str(file))
    category_ids, classes = read_categories(document.categories, findings)
    images, faulty, folders = read_images(document.images, folder, alone, findings)
    known = read_annotations(document.annotations, images, faulty, category_ids, classes, findings)
    names = Names(image["file_name"] for image in images)
    found = first_causes(findings.found)
    arrays, facts = _told(known, names)
    facts |= {"folder": os.fspath(folder), "findings": [vars(finding) for finding in found]}
    return Listed(arrays, facts, [os.fspath(file), *folders], keep=not any(finding.fatal for finding in found))


def _told(known: Annotations, names: Names) -> tuple[Arrays, dict[str, Any]]:
    """Returns what :meth:`CocoImages.of` takes back."""
    arrays = {name: getattr(known, name) for name in ARRAYS}
    if texts := known.image_ids.dtype.kind == "U":
        arrays["image_ids"] = known.image_ids[:, None].view(np.int32)
    arrays |= {"content": names.content, "starts_of_names": names.starts}
    return arrays, {"classes": known.classes, "category_ids": known.category_ids, "texts": texts}


def packable(images: CocoImages) -> Packable:
    """Returns images with boxes, to be packed."""
    arrays, facts = _told(images.annotations, images.names)

    def resized(arrays: Arrays, sizes: NDArray[np.int64]) -> Arrays:
        """Boxes and areas go with images; those of width 0 are as they were."""
        new = np.where(sizes > 0, sizes, arrays["sizes"])
        owners = np.repeat(np.arange(len(new)), np.diff(arrays["starts"]))
        factors = (new / arrays["sizes"])[owners]
        changed = {"boxes": arrays["boxes"] * np.tile(factors, 2), "areas": arrays["areas"] * factors.prod(axis=1)}
        return {**arrays, "sizes": new, **changed}

    sizes = images.annotations.sizes
    return Packable("boxes", images.names, images.path, lambda index: None, arrays, facts, resized, sizes)
