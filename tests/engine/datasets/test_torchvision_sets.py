"""Tiny files in the layout of torchvision's data sets: read from where they lie, with their labels and splits."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
import struct
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision import datasets

from engine.datasets.dataset import open_images, prepare_data
from engine.datasets.labelled import class_counts
from engine.datasets.sections import ArraySource, FileSource, TorchvisionData
from engine.datasets.torchvision_sets import SETS
from engine.errors import UserError

RNG = np.random.default_rng(0)
COUNTS = {"train": 4, "val": 2, "test": 1}
"""Images of each of two classes that the fakes have; those of class 0 are dark, those of class 1 bright."""


def save(path: Path, label: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (40 + 150 * label,) * 3).save(path, "png")  # whatever the file is called
    return path.name


def write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def each(split: str) -> list[tuple[int, int]]:
    """(label, running number) of the images of a split; the numbers differ between splits."""
    first = {"train": 1, "val": 5, "test": 7}[split]
    return [(label, first + k) for label in (0, 1) for k in range(COUNTS[split])]


def fake_folders(root: Path, folder: str, splits: dict[str, str], classes: list[str], name: str = "{:05d}.png") -> None:
    for split, place in splits.items():
        for label, k in each(split):
            save(root / folder / place / classes[label] / name.format(k), label)


def fake_food101(root: Path) -> None:
    for split in ("train", "test"):
        listed = {name: [f"{name}/{k}" for own, k in each(split) if own == label] for label, name in enumerate("ab")}
        write(root / "food-101" / "meta" / f"{split}.json", [json.dumps(listed)])
        for label, k in each(split):
            save(root / "food-101" / "images" / "ab"[label] / f"{k}.jpg", label)


def fake_oxford_iiit_pet(root: Path) -> None:
    base = root / "oxford-iiit-pet"
    for split, part in (("trainval", "train"), ("test", "test")):
        lines = []
        for label, k in each(part):
            name = f"{['Abyssinian', 'shiba_inu'][label]}_{k}"
            lines.append(f"{name} {label + 1} 1 1")
            save(base / "images" / f"{name}.jpg", label)
        write(base / "annotations" / f"{split}.txt", lines)


def fake_flowers102(root: Path) -> None:
    base, labels = root / "flowers-102", np.zeros(20, int)
    ids: dict[str, list[int]] = {}
    for split, name in (("train", "trnid"), ("val", "valid"), ("test", "tstid")):
        for label, k in each(split):
            number = k + 10 * label
            labels[number - 1] = label + 1
            ids.setdefault(name, []).append(number)
            save(base / "jpg" / f"image_{number:05d}.jpg", label)
    scipy.io.savemat(base / "imagelabels.mat", {"labels": labels})
    scipy.io.savemat(base / "setid.mat", ids)


def fake_dtd(root: Path) -> None:
    for split in COUNTS:
        names = [f"{['banded', 'woven'][label]}/{k}.jpg" for label, k in each(split)]
        write(root / "dtd" / "dtd" / "labels" / f"{split}1.txt", names)
        for name, (label, _) in zip(names, each(split), strict=True):
            save(root / "dtd" / "dtd" / "images" / name, label)


def fake_gtsrb(root: Path) -> None:
    base = root / "gtsrb"
    for label, k in each("train"):
        save(base / "GTSRB" / "Training" / f"{label:05d}" / f"{k}.ppm", label)
    lines = ["Filename;Width;ClassId"]
    for label, k in each("test"):
        name = save(base / "GTSRB" / "Final_Test" / "Images" / f"{k}{label}.ppm", label)
        lines.append(f"{name};6;{label}")
    write(base / "GT-final_test.csv", lines)


def fake_stanford_cars(root: Path) -> None:
    base = root / "stanford_cars"
    kind = np.dtype([("fname", object), ("class", object)])
    tables = {"train": base / "devkit" / "cars_train_annos.mat", "test": base / "cars_test_annos_withlabels.mat"}
    for split, table in tables.items():
        rows = [(save(base / f"cars_{split}" / f"{label}{k}.jpg", label), label + 1) for label, k in each(split)]
        table.parent.mkdir(exist_ok=True)
        scipy.io.savemat(table, {"annotations": np.array(rows, kind)})
    scipy.io.savemat(base / "devkit" / "cars_meta.mat", {"class_names": np.array(["Audi", "BMW"], object)})


def fake_fgvc_aircraft(root: Path) -> None:
    data = root / "fgvc-aircraft-2013b" / "data"
    write(data / "variants.txt", ["A 320", "B 747"])
    for split in COUNTS:
        write(
            data / f"images_variant_{split}.txt",
            [f"{label}{k} {['A 320', 'B 747'][label]}" for label, k in each(split)],
        )
        for label, k in each(split):
            save(data / "images" / f"{label}{k}.jpg", label)


def fake_sun397(root: Path) -> None:
    write(root / "SUN397" / "ClassName.txt", ["/a/abbey", "/b/bar/indoor"])
    for label, k in each("train"):
        save(root / "SUN397" / ["a/abbey", "b/bar/indoor"][label] / f"sun_{k}.jpg", label)


def fake_places365(root: Path, size: str = "large") -> None:
    write(root / "categories_places365.txt", ["/a/airfield 0", "/b/bar 1"])
    for split, name, folder in (
        ("train", "train_standard", f"data_{size}_standard"), ("val", "val", f"val_{size}"),
    ):  # fmt: skip
        write(root / f"places365_{name}.txt", [f"/{label}/{k}.jpg {label}" for label, k in each(split)])
        for label, k in each(split):
            save(root / folder / str(label) / f"{k}.jpg", label)


def fake_celeba(root: Path) -> None:
    base, lines = root / "celeba", []
    for split in COUNTS:
        for label, k in each(split):
            name = save(base / "img_align_celeba" / f"{label}{k}.jpg", label)
            lines.append((name, list(COUNTS).index(split), 2 * label - 1))
    write(base / "list_eval_partition.txt", [f"{name} {split}" for name, split, _ in lines])
    write(base / "identity_CelebA.txt", [f"{name} 1" for name, _, _ in lines])
    for other in ("bbox", "landmarks_align"):
        write(base / f"list_{other}_celeba.txt", ["6", "x", *(f"{name} 1" for name, _, _ in lines)])
    attributes = [f"{name} {value} 1" for name, _, value in lines]
    write(base / "list_attr_celeba.txt", ["14", "Bright Young ", *attributes])


def fake_stl10(root: Path) -> None:
    base = root / "stl10_binary"
    write(base / "class_names.txt", ["dark", "bright"])
    (base / "unlabeled_X.bin").touch()
    for split in ("train", "test"):
        labels = np.array([label for label, _ in each(split)], np.uint8)
        (base / f"{split}_y.bin").write_bytes((labels + 1).tobytes())
        pixels = (40 + 150 * labels)[:, None] * np.ones(3 * 96 * 96, np.uint8)
        (base / f"{split}_X.bin").write_bytes(pixels.astype(np.uint8).tobytes())


def fake_svhn(root: Path) -> None:
    for split in ("train", "test"):
        labels = np.array([label for label, _ in each(split)])
        pixels = np.ones((32, 32, 3, 1)) * (40 + 150 * labels)
        content = {"X": pixels.astype(np.uint8), "y": np.where(labels, 1, 10)[:, None]}
        scipy.io.savemat(root / f"{split}_32x32.mat", content)


def fake_usps(root: Path) -> None:
    import bz2

    for split, name in (("train", "usps.bz2"), ("test", "usps.t.bz2")):
        rows = [f"{label + 1} " + " ".join(f"{k}:{label - 0.5}" for k in range(256)) for label, _ in each(split)]
        (root / name).write_bytes(bz2.compress("\n".join(rows).encode()))


def fake_caltech101(root: Path) -> None:
    folder = root / "caltech101" / "101_ObjectCategories"
    for label, k in each("train"):
        save(folder / ["ant", "bass"][label] / f"image_{k:04d}.jpg", label)
    save(folder / "BACKGROUND_Google" / "image_0001.jpg", 0)


def fake_caltech256(root: Path) -> None:
    for label, k in each("train"):
        folder = root / "caltech256" / "256_ObjectCategories" / ["001.ak47", "002.flag"][label]
        save(folder / f"{label + 1:03d}_{k:04d}.jpg", label)


WNIDS = ["n01440764", "n02102040"]
FAKES: dict[str, tuple[Callable[[Path], None], str]] = {
    "caltech101": (fake_caltech101, ""),
    "caltech256": (fake_caltech256, ""),
    "celeba": (fake_celeba, "val test"),
    "country211": (partial(fake_folders, folder="country211", splits={"train": "train", "val": "valid", "test": "test"},
                           classes=["AD", "AE"]), "val test"),
    "dtd": (fake_dtd, "val test"),
    "eurosat": (partial(fake_folders, folder="eurosat", splits={"train": "2750"}, classes=["Forest", "River"]), ""),
    "fgvc_aircraft": (fake_fgvc_aircraft, "val test"),
    "flowers102": (fake_flowers102, "val test"),
    "food101": (fake_food101, "test"),
    "gtsrb": (fake_gtsrb, "test"),
    "imagenette": (partial(fake_folders, folder="imagenette2", splits={"train": "train", "val": "val"}, classes=WNIDS,
                           name="{}.JPEG"), "val"),
    "oxford_iiit_pet": (fake_oxford_iiit_pet, "test"),
    "places365": (fake_places365, "val"),
    "places365_small": (partial(fake_places365, size="256"), "val"),
    "rendered_sst2": (partial(fake_folders, folder="rendered-sst2", classes=["negative", "positive"],
                              splits={"train": "train", "val": "valid", "test": "test"}), "val test"),
    "stanford_cars": (fake_stanford_cars, "test"),
    "stl10": (fake_stl10, "test"),
    "sun397": (fake_sun397, ""),
    "svhn": (fake_svhn, "test"),
    "usps": (fake_usps, "test"),
}  # fmt: skip
"""How to write a fake of each set, and the splits that its authors made besides train."""
REST = {"cifar10", "cifar100", "mnist", "fashion_mnist", "kmnist"}
"""Those with tests of their own below."""


@pytest.fixture
def unchecked(monkeypatch):
    """torchvision compares checksums of some files with those of the real ones."""
    for module in ("celeba", "flowers102", "places365", "stl10", "svhn"):
        there = lambda path, md5=None: Path(path).is_file()  # noqa: E731
        monkeypatch.setattr(getattr(datasets, module), "check_integrity", there)


def test_each_named_set_has_a_fake():
    assert set(SETS) == set(FAKES) | REST == set(get_args(ArraySource)) | set(get_args(FileSource))


def check(images, split: str) -> None:
    """Whether these are a fake's images of ``split``, dark and bright ones of classes 0 and 1."""
    labels = images.labels[:, 0] if images.multi_label else images.labels
    shown = [np.asarray(images.image(k)).mean() > 110 for k in range(len(images))]
    assert shown == labels.astype(bool).tolist()
    assert np.bincount(labels).tolist() == [COUNTS[split]] * 2
    assert len({images.name(k) for k in range(len(images))}) == len(images)


@pytest.mark.parametrize("source", list(FAKES))
def test_splits_and_labels_of_named_sets(tmp_path, unchecked, source):
    fake, official = FAKES[source]
    fake(tmp_path)
    data = TorchvisionData(source=source, root=tmp_path)
    train = open_images(data, "train")
    check(train, "train")
    assert len(train.classes) >= 2 and all(isinstance(name, str) for name in train.classes)
    if not official:
        with pytest.raises(UserError, match=rf"{source} has no official split into train and val; data\.val_fraction"):
            open_images(data, "val")
    else:
        val = open_images(data, "val")
        check(val, "val" if "val" in official else "test")
        assert val.classes == train.classes
    if official == "val test":
        check(open_images(data, "test"), "test")
    else:
        with pytest.raises(UserError, match=f"{source} has no test split"):
            open_images(data, "test")
    data = TorchvisionData(source=source, root=tmp_path, val_fraction=0.25)
    if "val" in official:
        with pytest.raises(UserError, match=f"{source} has a val of its own"):
            open_images(data, "train")
        return
    assert class_counts(open_images(data, "train"))[:2].tolist() == [3, 3]
    assert class_counts(open_images(data, "val"))[:2].tolist() == [1, 1]
    if official == "test":
        check(open_images(data, "test"), "test")


@pytest.mark.parametrize("source", list(FAKES))
def test_named_sets_that_are_not_there(tmp_path, source):
    with pytest.raises(UserError, match=rf"data\.root: .* does not hold all files of {source}, .*data\.download=true"):
        open_images(TorchvisionData(source=source, root=tmp_path), "train")
    assert list(tmp_path.iterdir()) == []


def test_a_set_without_official_test_says_so(tmp_path):
    with pytest.raises(UserError, match=r"data\.source: mnist has no test split besides val"):
        open_images(TorchvisionData(source="mnist", root=tmp_path), "test")


def write_idx(path, array: np.ndarray) -> None:
    """MNIST's format: magic number with the element type (8: bytes) and the rank, sizes, values."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + array.tobytes())


@pytest.mark.parametrize(
    ("source", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
def test_mnist_and_its_likes_are_read_from_their_files(tmp_path, source, folder):
    written = {}
    for part, count in (("train", 12), ("t10k", 5)):
        images = RNG.integers(0, 256, (count, 28, 28), np.uint8)
        labels = (np.arange(count) * 3 % 10).astype(np.uint8)
        write_idx(tmp_path / folder / "raw" / f"{part}-images-idx3-ubyte", images)
        write_idx(tmp_path / folder / "raw" / f"{part}-labels-idx1-ubyte", labels)
        written[part] = images, labels
    for split, part in (("train", "train"), ("val", "t10k")):
        found = open_images(TorchvisionData(source=source, root=tmp_path), split)
        images, labels = written[part]
        assert found.labels.tolist() == labels.tolist()
        assert len(found.classes) == 10
        assert np.array_equal(np.asarray(found.image(4)), np.stack([images[4]] * 3, 2))


@pytest.mark.parametrize("source", ["cifar10", "cifar100"])
def test_cifar_is_read_from_its_files(tmp_path, monkeypatch, source):
    """Small files in CIFAR's python format; torchvision checks the real ones' MD5, so it is told those of ours."""
    kind = datasets.CIFAR10 if source == "cifar10" else datasets.CIFAR100
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    names = [f"class {k}" for k in range(10 if source == "cifar10" else 100)]

    def write(name: str, content: dict) -> str:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    written = {}
    for part, files in (("train_list", kind.train_list), ("test_list", kind.test_list)):
        entries, images, labels = [], [], []
        for name, _ in files:
            images.append(RNG.integers(0, 256, (3, 3072), np.uint8))
            labels += (own := [int(label) for label in RNG.integers(0, len(names), 3)])
            key = "labels" if source == "cifar10" else "fine_labels"
            entries.append([name, write(name, {"data": images[-1], key: own})])
        monkeypatch.setattr(kind, part, entries)
        written[part] = np.concatenate(images).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels
    key = kind.meta["key"]
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": write(kind.meta["filename"], {key: names})})

    for split, part in (("train", "train_list"), ("val", "test_list")):
        found = open_images(TorchvisionData(source=source, root=tmp_path), split)
        assert found.classes == names
        assert found.labels.tolist() == written[part][1]
        assert np.array_equal(np.asarray(found.image(2)), written[part][0][2])


@pytest.mark.parametrize("source", ["cifar10", "cifar100", "mnist", "fashion_mnist", "kmnist"])
def test_missing_files_are_a_user_error_with_the_cure(tmp_path, source):
    data = TorchvisionData(source=source, root=tmp_path / "nowhere")
    prepare_data(data)
    with pytest.raises(
        UserError, match=rf"data\.root: .*nowhere does not hold all files of {source}.*data\.download=true"
    ):
        open_images(data, "train")
    assert not (tmp_path / "nowhere").exists()


def test_a_broken_file_is_a_user_error(tmp_path):
    for part in ("train", "t10k"):
        write_idx(tmp_path / "MNIST" / "raw" / f"{part}-images-idx3-ubyte", RNG.integers(0, 256, (3, 28, 28), np.uint8))
        write_idx(tmp_path / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte", np.zeros(3, np.uint8))
    data = TorchvisionData(source="mnist", root=tmp_path)
    assert len(open_images(data, "train")) == 3
    broken = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(UserError, match=r"data\.root: .* does not hold all files of mnist, whole"):
        open_images(data, "train")


def test_a_download_happens_only_when_asked_for_and_fails_with_the_cure(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.MNIST, "mirrors", [(tmp_path / "no-such-server").as_uri() + "/"])
    data = TorchvisionData(source="mnist", root=tmp_path / "data", download=True)
    with pytest.raises(UserError, match=r"data\.download: mnist could not be fetched into .*copy its files there"):
        prepare_data(data)


def test_a_download_brings_the_files(tmp_path, monkeypatch):
    """From a server on this machine."""
    server = tmp_path / "server"
    resources = []
    for name, md5 in datasets.MNIST.resources:
        count = 6 if name.startswith("train") else 4
        shape = (count, 28, 28) if "images" in name else (count,)
        write_idx(server / name, RNG.integers(0, 10, shape, np.uint8))
        data = gzip.compress((server / name).read_bytes())
        (server / name).write_bytes(data)
        resources.append((name, hashlib.md5(data).hexdigest()))
        assert md5 != resources[-1][1]
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    config = TorchvisionData(source="mnist", root=tmp_path / "data", download=True)
    handler = partial(SimpleHTTPRequestHandler, directory=server)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{httpd.server_port}/"])
        prepare_data(config)
        httpd.shutdown()
    assert (len(open_images(config, "train")), len(open_images(config, "val"))) == (6, 4)
