"""Labelled images in tar files: those that tools.pack has made, and WebDataset's of image classification."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.data.file_check import InFiles
from engine.data.index import FromIndex, Listed, listed, read_index
from engine.data.names import Names
from engine.data.read_ahead import FileReader
from engine.data.shards import Shards
from engine.datasets.class_folders import SPLIT_FOLDERS
from engine.datasets.holdout import HOW_TO_HOLD_OUT, part
from engine.datasets.labelled import LabelledImages
from engine.datasets.sections import FolderData, ShardData
from engine.errors import UserError
from engine.images.lazy_image import LazyImage, load_image

INDEX = "{}.index.safetensors"
"""What a split's index is called that tools.pack has made, beside its shards."""
CLASSES = "classes.txt"
"""Beside WebDataset's shards: the names of the classes, a line each."""
IMAGES = tuple(FolderData.model_fields["extensions"].default)
READ = (*IMAGES, ".cls", ".json")
"""Endings of what is read of a sample."""
LABEL_KEYS = ("label", "cls", "class", "class_id")
"""Of a sample's JSON, where it has no file .cls."""
_NUMBER = re.compile(r"-?\d{1,9}")


class ShardImages(LabelledImages, FromIndex, InFiles):
    """Images in tar files: no Python object for any of them, but arrays that processes share."""

    def __init__(self, classes: list[str], labels: NDArray[np.integer], names: Names, shards: Shards) -> None:
        super().__init__(classes, labels)
        self.names = names
        self.shards: Shards = shards
        self._reader = FileReader(read=shards.read)

    @classmethod
    def of(cls, known: Listed) -> ShardImages:
        arrays, facts = known.arrays, known.facts
        names = Names.of(arrays["content"], arrays["starts"])
        images = cls(facts["classes"], arrays["labels"], names, Shards.of(known))
        images.index = known
        if "digest_of_names" in facts:
            images.digest_of_names = facts["digest_of_names"]
        return images

    def subset(self, indices: NDArray[np.int64]) -> ShardImages:
        return ShardImages(self.classes, self.labels[indices], self.names.take(indices), self.shards.take(indices))

    def image(self, index: int) -> LazyImage:
        content = self._reader.read(self.shards.piece(index))
        return load_image(self.path(index), content)

    def path(self, index: int) -> Path:
        return self.shards.path(index, self.name(index))

    @property
    def wait_seconds(self) -> float:
        return self._reader.wait_seconds

    def announce(self, indices: Iterable[int], threads: int) -> None:
        self._reader.announce(map(self.shards.piece, indices), threads)

    def name(self, index: int) -> str:
        return self.names[index]

    @property
    def places(self) -> Names:
        return self.names

    def fingerprint(self, index: int) -> int:
        return self.file_size(index)


def open_shards(config: ShardData, split: str) -> ShardImages:
    """Opens the images of one split in the shards below ``config.root``.

    Raises:
        UserError: there are none, or not all that their index names.
    """
    if config.val_fraction is None or split == "test":
        return _open(config.root, split)
    if _is_there(config.root, "val"):
        raise UserError(f"data.val_fraction: {config.root} has a val of its own; set data.val_fraction=null")
    return part(_open(config.root, "train"), config, split)


def shards_of(root: Path) -> Iterator[Shards]:
    """Yields the shards of each split that is there."""
    for split in SPLIT_FOLDERS:
        if _is_there(root, split):
            yield _open(root, split).shards


def _is_there(root: Path, split: str) -> bool:
    return (root / INDEX.format(split)).exists() or bool(_tars(root, split))


def _open(root: Path, split: str) -> ShardImages:
    known = read_packed(root, split, "image")
    if known is None:
        tars = _tars(root, split)
        if any(root.glob(f".{split}-*.tar*")):  # what tools.pack leaves until it has written the index
            raise UserError(f"data.root: {root}: the packing of {split} is not finished: call tools.pack as before")
        if not tars:
            advice = f"; {HOW_TO_HOLD_OUT}" if split == "val" else ""
            if (root / INDEX.format("train")).exists():
                advice += "; or, if tools.pack was interrupted, call it as before"
            raise UserError(f"data.root: {root} has neither {INDEX.format(split)} nor tar files of {split}{advice}")
        others = [] if split == "train" else _tars(root, "train")  # they have the classes
        known = listed(root, ["shards", split, tars, others], lambda: _read_tars(root, split, tars, others))
    images = ShardImages.of(known)
    images.shards.check()
    return images


def read_packed(root: Path, split: str, kind: str) -> Listed | None:
    """Returns the index that tools.pack has made of a split; None if there is none.

    Args:
        root: The folder of the shards.
        split: Which.
        kind: What is in them: ``image`` with labels, or ``boxes``.

    Raises:
        UserError: it cannot be read, or is of another kind.
    """
    file = root / INDEX.format(split)
    if not file.exists():
        return None
    known = read_index(file)
    if known is None:
        raise UserError(f"data.root: {file} is no index of shards; pack the data anew")
    if known.facts["kind"] != kind:
        raise UserError(f"data.root: {file} is of another task: it has {known.facts['kind']}, where {kind} are needed")
    return known


def _tars(root: Path, split: str) -> list[str]:
    """Returns the tar files of a split, below the root: those whose name, or whose folder's, begins with its name."""
    for name in SPLIT_FOLDERS[split]:
        if found := sorted([*root.glob(f"{name}*.tar"), *root.glob(f"{name}/*.tar")]):
            return [os.fspath(file.relative_to(root)) for file in found]
    return []


def _read_tars(root: Path, split: str, tars: list[str], others: list[str]) -> Listed:
    """Goes through tar files once, header by header; ``others``: those on which its classes depend."""
    pieces, labels, faults = list[tuple[int, int, int]](), list[int](), list[str]()
    times = [(root / name).stat().st_mtime_ns for name in tars]

    def names() -> Iterator[str]:
        for number, name in enumerate(tars):
            for key, files in _samples(root / name):
                image = next((ending for ending in files if ending in IMAGES), None)
                label = _label(files)
                if image is None or isinstance(label, str):
                    fault = f"has no image ({', '.join(IMAGES)})" if image is None else label
                    faults.append(f"{root / name}: {key} {fault}{_dots(key, files)}")
                    continue
                _, offset, size = files[image]
                pieces.append((number, offset, size))
                labels.append(label)
                yield f"{key}{image}"

    found = Names(names())
    if faults or not labels:
        shown = [*faults[:5], *([f"and {len(faults) - 5} more"] if len(faults) > 5 else [])]
        raise UserError("\n".join(shown or [f"data.root: {root}: no images in {', '.join(tars[:5])}"]))
    classes = _class_names(root, split, max(labels) + 1)
    if min(labels) < 0 or max(labels) >= len(classes):
        wrong = min(labels) if min(labels) < 0 else max(labels)
        whose = f"lines of {CLASSES}" if (root / CLASSES).is_file() else "classes of train"
        raise UserError(
            f"data.root: {root}: {split} has images of class {wrong}; classes are numbers from 0 to "
            f"{len(classes) - 1}, as there are {len(classes)} {whose}"
        )
    return Listed(
        {
            "content": found.content,
            "starts": found.starts,
            "labels": np.array(labels, np.int64),
            "pieces": np.array(pieces, np.int64),
        },
        {
            "folder": os.fspath(root),
            "shards": tars,
            "sizes": [(root / name).stat().st_size for name in tars],
            "times": times,
            "version": repr(times),
            "classes": classes,
        },
        [*(os.fspath(root / name) for name in (*tars, *others)), os.fspath(root / CLASSES)],
    )


def _samples(tar: Path) -> Iterator[tuple[str, dict[str, tuple[bytes | None, int, int]]]]:
    """Yields each key with its files by their endings: the content of small ones, offset and size."""
    key, files = "", dict[str, tuple[bytes | None, int, int]]()
    try:
        with tarfile.open(tar, "r:") as opened:
            for member in opened:
                if not member.isfile():
                    continue
                folder, _, base = member.name.rpartition("/")
                stem, _, ending = base.partition(".")
                own = f"{folder}/{stem}" if folder else stem
                if own != key:
                    if files:
                        yield key, files
                    key, files = own, {}
                text = ending.lower() in ("cls", "json")
                stream = opened.extractfile(member) if text else None
                content = stream.read() if stream is not None else None
                if f".{ending.lower()}" in files:
                    raise UserError(f"{tar}: {member.name} is there twice: give each sample a key of its own")
                files[f".{ending.lower()}"] = content, member.offset_data, member.size
                opened.members = []  # type: ignore[attr-defined]  # it would keep them all
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"{tar}: cannot be read as a tar file ({error}); replace it") from None
    if files:
        yield key, files


def _label(files: dict[str, tuple[bytes | None, int, int]]) -> int | str:
    """Returns the number of a sample's class, or what is wrong with it."""
    wanted = f"where the number of its class is needed, from 0, as lines of {CLASSES} are counted"
    if ".cls" in files:
        text = (files[".cls"][0] or b"").decode("utf-8", "replace").strip()
        return int(text) if _NUMBER.fullmatch(text) else f"has {text[:40]!r} in its .cls, {wanted}"
    if ".json" not in files:
        return "has no class: neither a .cls nor a .json"
    try:
        given = json.loads(files[".json"][0] or b"")
    except ValueError as error:
        return f"has a .json that cannot be read: {error}"
    key = next((key for key in LABEL_KEYS if key in given), None) if isinstance(given, dict) else None
    if key is None:
        return f"has no class: its .json has none of the keys {', '.join(LABEL_KEYS)}"
    label = given[key]
    if isinstance(label, int) or (isinstance(label, str) and _NUMBER.fullmatch(label.strip())):
        return int(label)
    return f"has {json.dumps(label)[:40]} as {key} in its .json, {wanted}"


def _dots(key: str, files: Iterable[str]) -> str:
    """Says, after what is missing of a sample, where that is another ending: WebDataset's begins at the first dot."""
    odd = next((ending for ending in files if "." in ending[1:] and f".{ending.rpartition('.')[2]}" in READ), None)
    if odd is None:
        return ""
    return f"; it has {key}{odd}, and WebDataset's keys end at the first dot: keep other dots out of the names of files"


def _class_names(root: Path, split: str, least: int) -> list[str]:
    file = root / CLASSES
    if file.is_file():
        return file.read_text(encoding="utf-8").splitlines()
    if split != "train" and _is_there(root, "train"):
        return _open(root, "train").classes
    return [str(number) for number in range(least)]
