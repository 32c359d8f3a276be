from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from torchvision import datasets

from classification.data_config import DigitsData, TorchvisionData
from classification.datasets import open_pictures, prepare_data
from classification.sources import open_digits
from engine.errors import UserError

RNG = np.random.default_rng(0)


def test_digits_are_split_once_for_all():
    train, val = open_digits("train"), open_digits("val")
    assert (len(train), len(val)) == (1437, 360)
    assert train.classes == val.classes == [str(digit) for digit in range(10)]
    of_class = np.bincount(train.labels) + np.bincount(val.labels)
    assert of_class.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.abs(np.bincount(val.labels) - of_class * 360 / 1797).max() < 1
    assert hashlib.sha256(val.labels.tobytes()).hexdigest()[:16] == "89df99af78caf580"


def test_digits_hold_every_picture_of_scikit_learn_once():
    from sklearn.datasets import load_digits

    ours = [
        np.asarray(part.picture(k))[..., 0] for part in map(open_digits, ("train", "val")) for k in range(len(part))
    ]
    theirs = np.round(load_digits().images * 255 / 16).astype(np.uint8)
    assert sorted(picture.tobytes() for picture in ours) == sorted(picture.tobytes() for picture in theirs)


def test_a_digit_is_a_grey_rgb_picture_of_8_by_8():
    picture = open_digits("val").picture(3)
    assert (picture.mode, picture.size) == ("RGB", (8, 8))
    values = np.asarray(picture)
    assert (values[..., 0] == values[..., 2]).all()
    assert values.max() == 255


@pytest.mark.parametrize("source", ["digits", "mnist"])
def test_sources_without_a_test_split_say_so(tmp_path, source):
    data = DigitsData(source="digits") if source == "digits" else TorchvisionData(source="mnist", root=tmp_path)
    with pytest.raises(UserError, match=rf"data\.source: {source} has no test split besides val"):
        open_pictures(data, "test")


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
        pictures = open_pictures(TorchvisionData(source=source, root=tmp_path), split)
        images, labels = written[part]
        assert pictures.labels.tolist() == labels.tolist()
        assert len(pictures.classes) == 10
        assert np.array_equal(np.asarray(pictures.picture(4)), np.stack([images[4]] * 3, 2))


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
        pictures = open_pictures(TorchvisionData(source=source, root=tmp_path), split)
        assert pictures.classes == names
        assert pictures.labels.tolist() == written[part][1]
        assert np.array_equal(np.asarray(pictures.picture(2)), written[part][0][2])


@pytest.mark.parametrize("source", ["cifar10", "cifar100", "mnist", "fashion_mnist", "kmnist"])
def test_missing_files_are_a_user_error_with_the_cure(tmp_path, source):
    data = TorchvisionData(source=source, root=tmp_path / "nowhere")
    prepare_data(data)
    with pytest.raises(
        UserError, match=rf"data\.root: .*nowhere does not hold all files of {source}.*data\.download=true"
    ):
        open_pictures(data, "train")
    assert not (tmp_path / "nowhere").exists()


def test_a_broken_file_is_a_user_error(tmp_path):
    for part in ("train", "t10k"):
        write_idx(tmp_path / "MNIST" / "raw" / f"{part}-images-idx3-ubyte", RNG.integers(0, 256, (3, 28, 28), np.uint8))
        write_idx(tmp_path / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte", np.zeros(3, np.uint8))
    data = TorchvisionData(source="mnist", root=tmp_path)
    assert len(open_pictures(data, "train")) == 3
    broken = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(UserError, match=r"data\.root: .* does not hold all files of mnist, whole"):
        open_pictures(data, "train")


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
    assert (len(open_pictures(config, "train")), len(open_pictures(config, "val"))) == (6, 4)
