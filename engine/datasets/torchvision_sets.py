"""torchvision's classification data sets by name: small ones in memory, the others read from their files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.datasets.holdout import HOW_TO_HOLD_OUT, part
from engine.datasets.labelled import ArrayImages, FileImages
from engine.datasets.sections import TorchvisionData
from engine.errors import UserError

Splits = Mapping[str, Mapping[str, Any]]
"""What torchvision's class is told for each split that the authors made."""

BY_FLAG: Splits = {"train": {"train": True}, "test": {"train": False}}
TRAIN_TEST: Splits = {"train": {"split": "train"}, "test": {"split": "test"}}
TRAINVAL_TEST: Splits = {"train": {"split": "trainval"}, "test": {"split": "test"}}
TRAIN_VAL: Splits = {"train": {"split": "train"}, "val": {"split": "val"}}
THREE: Splits = {**TRAIN_TEST, "val": {"split": "val"}}
THREE_VALID: Splits = {**TRAIN_TEST, "val": {"split": "valid"}}
UNDIVIDED: Splits = {"train": {}}
PLACES: Splits = {"train": {"split": "train-standard"}, "val": {"split": "val"}}
SMALL_PLACES: Splits = {split: {**given, "small": True} for split, given in PLACES.items()}


CALTECH101 = "101_ObjectCategories/{0}/image_{1:04d}.jpg"
CALTECH256 = "256_ObjectCategories/{0}/{number:03d}_{1:04d}.jpg"


def _arrays(dataset: Any) -> tuple[list[str], Sequence[int], NDArray[np.uint8]]:
    return list(getattr(dataset, "classes", "0123456789")), dataset.targets, np.asarray(dataset.data)


def _planes(dataset: Any) -> tuple[list[str], Sequence[int], NDArray[np.uint8]]:
    """Returns classes, labels and images of a set that is stored as (N, 3, H, W)."""
    return list(getattr(dataset, "classes", "0123456789")), dataset.labels, dataset.data.transpose(0, 2, 3, 1)


def _files(dataset: Any) -> tuple[list[str], Sequence[int], Sequence[str | Path]]:
    files = dataset._images if hasattr(dataset, "_images") else dataset._image_files
    return list(dataset.classes), dataset._labels, files


def _samples(dataset: Any) -> tuple[list[str], Sequence[int], Sequence[str | Path]]:
    """Returns classes, labels and files of a set of pairs. Imagenette's classes have several names, GTSRB's numbers."""
    samples = next(getattr(dataset, name) for name in ("_samples", "samples", "imgs") if hasattr(dataset, name))
    classes = [name if isinstance(name, str) else name[0] for name in getattr(dataset, "classes", map(str, range(43)))]
    return classes, [label for _, label in samples], [path for path, _ in samples]


def _caltech(file: str, dataset: Any) -> tuple[list[str], Sequence[int], Sequence[str | Path]]:
    """Returns classes, labels and files of a set whose files are called by their numbers, and those of their class."""
    places, classes = zip(dataset.y, dataset.index, strict=True), list(dataset.categories)
    return classes, dataset.y, [Path(dataset.root, file.format(classes[y], index, number=y + 1)) for y, index in places]


def _celeba(dataset: Any) -> tuple[list[str], Any, Sequence[str | Path]]:
    folder = Path(dataset.root, dataset.base_folder, "img_align_celeba")
    classes = [name for name in dataset.attr_names if name]
    return classes, dataset.attr.numpy().astype(np.uint8), [folder / name for name in dataset.filename]


@dataclass(frozen=True)
class NamedSet:
    """A data set of torchvision: its class, and how its splits and images are had."""

    kind: str
    """Its class in `torchvision.datasets`."""
    splits: Splits
    read: Callable[[Any], tuple[list[str], Any, Any]] = _files
    """Class names, labels, and pixels or paths of an open one."""
    folder: str = ""
    """Below the root; looked for first, where torchvision would make it."""


SETS = {
    "caltech101": NamedSet("Caltech101", UNDIVIDED, partial(_caltech, CALTECH101), "caltech101"),
    "caltech256": NamedSet("Caltech256", UNDIVIDED, partial(_caltech, CALTECH256), "caltech256"),
    "celeba": NamedSet("CelebA", THREE_VALID, _celeba),
    "cifar10": NamedSet("CIFAR10", BY_FLAG, _arrays),
    "cifar100": NamedSet("CIFAR100", BY_FLAG, _arrays),
    "country211": NamedSet("Country211", THREE_VALID, _samples),
    "dtd": NamedSet("DTD", THREE),
    "eurosat": NamedSet("EuroSAT", UNDIVIDED, _samples),
    "fashion_mnist": NamedSet("FashionMNIST", BY_FLAG, _arrays),
    "fgvc_aircraft": NamedSet("FGVCAircraft", THREE),
    "flowers102": NamedSet("Flowers102", THREE),
    "food101": NamedSet("Food101", TRAIN_TEST),
    "gtsrb": NamedSet("GTSRB", TRAIN_TEST, _samples),
    "imagenette": NamedSet("Imagenette", TRAIN_VAL, _samples),
    "kmnist": NamedSet("KMNIST", BY_FLAG, _arrays),
    "mnist": NamedSet("MNIST", BY_FLAG, _arrays),
    "oxford_iiit_pet": NamedSet("OxfordIIITPet", TRAINVAL_TEST),
    "places365": NamedSet("Places365", PLACES, _samples),
    "places365_small": NamedSet("Places365", SMALL_PLACES, _samples),
    "rendered_sst2": NamedSet("RenderedSST2", THREE, _samples),
    "stanford_cars": NamedSet("StanfordCars", TRAIN_TEST, _samples),
    "stl10": NamedSet("STL10", TRAIN_TEST, _planes),
    "sun397": NamedSet("SUN397", UNDIVIDED),
    "svhn": NamedSet("SVHN", TRAIN_TEST, _planes),
    "usps": NamedSet("USPS", BY_FLAG, _arrays),
}
"""By `data.source`."""


def open_torchvision(config: TorchvisionData, split: str) -> ArrayImages | FileImages:
    """Opens a split of a data set of torchvision. Downloads nothing.

    ``val`` is the authors' val; where they made none their test, or what ``val_fraction`` takes from train; ``test`` is
    their test where that is not val. CIFAR's published files are pickles: torchvision reads them only if their
    checksums are the published ones.

    Raises:
        UserError: the files are not there, or the set has no such split.
    """
    official = SETS[config.source].splits
    if config.val_fraction is not None and "val" in official:
        raise UserError(f"data.val_fraction: {config.source} has a val of its own; set data.val_fraction=null")
    if config.val_fraction is not None and split != "test":
        return part(_open(config, "train"), config, split)
    if split == "val" and "val" not in official:
        if "test" not in official:
            raise UserError(f"data.source: {config.source} has no official split into train and val; {HOW_TO_HOLD_OUT}")
        return _open(config, "test")
    if split == "test" and ("test" not in official or ("val" not in official and config.val_fraction is None)):
        besides = " besides val, which holds its held-out images" if "test" in official else ""
        raise UserError(f"data.source: {config.source} has no test split{besides}")
    return _open(config, split)


def _open(config: TorchvisionData, official: str) -> ArrayImages | FileImages:
    named = SETS[config.source]
    try:
        if not (config.root / named.folder).is_dir():
            raise FileNotFoundError(f"no folder {config.root / named.folder}")
        dataset = _class(named)(config.root, **named.splits[official], download=False)
        classes, labels, content = named.read(dataset)
    except (RuntimeError, OSError, ValueError, LookupError, AssertionError) as error:
        raise UserError(
            f"data.root: {config.root} does not hold all files of {config.source}, whole and as torchvision lays them "
            f"out ({type(error).__name__}: {' '.join(str(error).split())}); "
            "set data.download=true on a machine with access to the internet, or copy them there"
        ) from None
    labels = np.asarray(labels)
    labels = labels if labels.ndim == 2 else labels.astype(np.int64)
    if isinstance(content, np.ndarray):
        return ArrayImages(classes, labels, content)
    paths = [os.path.relpath(path, config.root) for path in content]
    order = np.argsort(np.array(paths), kind="stable")  # some sets are listed in the file system's order
    return FileImages(config.root, classes, labels[order], (paths[index] for index in order))


def download(config: TorchvisionData) -> None:
    """Fetches the files of all splits, unless they are there. For one process of a node while the others wait."""
    named = SETS[config.source]
    try:
        for given in named.splits.values():
            _class(named)(config.root, **given, download=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"data.download: {config.source} could not be fetched into {config.root} ({' '.join(str(error).split())}); "
            "copy its files there by hand, or run once where there is internet access"
        ) from None


def _class(named: NamedSet) -> Any:
    from torchvision import datasets

    return getattr(datasets, named.kind)
