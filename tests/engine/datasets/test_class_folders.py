from __future__ import annotations

import logging
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from engine.data.batch_plan import BatchLayout, NaturalOrder
from engine.data.loaders import MicroBatchSampler, TrainLoader
from engine.data.workers import WorkerSettings
from engine.datasets.class_folders import open_folder
from engine.datasets.dataset import ImageReader, open_images
from engine.datasets.sections import FolderData
from engine.errors import UserError


def save(path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8, 3), value, np.uint8)).save(path)


@pytest.fixture
def root(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        for label, name in enumerate(["ant", "bee", "Cat"]):
            for k in range(count):
                save(tmp_path / split / name / f"{k}.png", value=10 * label + k)
    return tmp_path


def data(root, **keys) -> FolderData:
    return FolderData(source="folder", root=root, **keys)


def test_class_folders_in_sorted_order(root):
    images = open_images(data(root), "train")
    assert images.classes == ["Cat", "ant", "bee"]
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert images.labels.dtype == np.int64
    assert len(images) == 9
    assert [images.name(k) for k in (0, 4, 8)] == ["Cat/0.png", "ant/1.png", "bee/2.png"]
    assert [int(np.asarray(images.image(k))[0, 0, 0]) for k in range(9)] == [20, 21, 22, 0, 1, 2, 10, 11, 12]


def test_images_beside_the_classes_are_told_of(root, caplog):
    save(root / "train" / "stray.PNG")
    (root / "train" / "notes.txt").touch()
    assert len(open_folder(data(root), "train")) == 9
    told = "images beside the folders of classes are of none and left out: stray.PNG"
    assert caplog.messages == [f"{root}/train: {told}"]
    shutil.rmtree(root / "val")
    for split in ("train", "val"):  # which is held out of the same folder
        open_folder(data(root, val_fraction=0.4), split)
    assert caplog.messages == [f"{root}/train: {told}"] * 2


def test_val_may_be_called_validation_and_test_is_optional(root):
    assert len(open_folder(data(root), "val")) == 6
    (root / "val").rename(root / "validation")
    assert len(open_folder(data(root), "val")) == 6
    (root / "val").mkdir()
    with pytest.raises(UserError, match=r"/val and .*/validation both claim to be val; keep one"):
        open_folder(data(root), "val")
    (root / "val").rmdir()
    with pytest.raises(UserError, match=r"has no folder test; .* holds train, validation"):
        open_folder(data(root), "test")
    (root / "validation").rename(root / "test")
    assert len(open_folder(data(root), "test")) == 6


def test_folders_below_a_class_links_and_any_case_of_endings_count(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    save(elsewhere / "x.png")
    save(root / "train" / "ant" / "more" / "deep.PNG")
    (root / "train" / "ant" / "linked").symlink_to(elsewhere)
    (root / "train" / "ant" / "loop").symlink_to(root / "train" / "ant")
    (root / "train" / "ant" / "file.png").symlink_to(elsewhere / "x.png")
    images = open_folder(data(root), "train")
    names = [images.name(k) for k in np.flatnonzero(images.labels == 1)]
    assert names == [f"ant/{file}" for file in ("0.png", "1.png", "2.png", "file.png", "linked/x.png", "more/deep.PNG")]
    assert images.image(3 + names.index("ant/linked/x.png")).size == (8, 6)


def test_hidden_and_other_files_are_left_alone(root):
    save(root / "train" / "ant" / ".hidden.png")
    save(root / "train" / "ant" / ".thumbnails" / "0.png")
    save(root / "train" / ".cache" / "0.png")
    save(root / "train" / "stray.png")
    (root / "train" / "ant" / "notes.txt").write_text("not an image")
    assert len(open_folder(data(root), "train")) == 9


def test_pictures_of_other_endings_are_counted_and_named(root, caplog):
    for name, ending in (("a", ".jfif"), ("b", ".jfif"), ("c", "")):
        (root / "train" / "ant" / f"{name}{ending}").write_bytes((root / "train" / "ant" / "0.png").read_bytes())
    (root / "train" / "bee" / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (root / "train" / "bee" / "notes.txt").write_text("no image")
    (root / "train" / "bee" / "._0.png").touch()
    with caplog.at_level(logging.INFO):
        assert len(open_folder(data(root), "train")) == 9
    assert caplog.messages == [
        f"{root}/train: 4 images left out for their endings (2 x .jfif, 1 x no ending, 1 x .HEIC); the first: "
        f"{root}/train/ant/a.jfif; .jfif, no ending can be read: name their endings in data.extensions, or rename the "
        "files; convert .HEIC",
        f"{root}/train: 1 files that are no images left out for their endings (1 x .txt); the first: "
        f"{root}/train/bee/notes.txt",
        f"{root}/train: 1 hidden files and folders left out; the first: {root}/train/bee/._0.png",
    ]
    assert len(open_folder(data(root, extensions=[".png", ".jfif"]), "train")) == 11


def test_each_of_many_endings_is_counted_within_bounds(root, monkeypatch, caplog):
    monkeypatch.setattr("engine.images.folder_listing.KINDS", 2)
    for number in range(6):
        (root / "train" / "ant" / f"scan.{number}").touch()
    with caplog.at_level(logging.INFO):
        open_folder(data(root), "train")
    (told,) = caplog.messages
    assert "6 files that are no images" in told and "4 x other endings" in told


@pytest.mark.parametrize("target", ["..", "../..", "../bee", "../../train/bee"])
def test_links_out_of_a_class_are_left_out_and_told(root, target, caplog):
    (root / "train" / "ant" / "all").symlink_to(target)
    images = open_folder(data(root), "train")
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    (told,) = caplog.messages
    assert told.startswith(f"{root}/train: 1 links to folders that hold this one, or are another class, are left out")
    assert told.endswith(f"/train/ant/all -> {(root / 'train' / 'ant' / target).resolve()}")


def test_a_class_of_nothing_but_a_link_is_called_that(root):
    (root / "train" / "all").symlink_to(".")
    with pytest.raises(UserError, match=r"train/all: no images in this class but those of a link: .*: remove the link"):
        open_folder(data(root), "train")


def denied(folder):
    """os.scandir for a user who may not read ``folder``: root may read all."""

    def scandir(path):
        if os.fspath(path) == os.fspath(folder):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return SCANDIR(path)

    return scandir


SCANDIR = os.scandir


def test_folders_that_cannot_be_read_are_named(root, monkeypatch, caplog):
    save(root / "train" / "ant" / "more" / "deep.png")
    monkeypatch.setattr(os, "scandir", denied(root / "train" / "ant" / "more"))
    assert len(open_folder(data(root), "train")) == 9
    (told,) = caplog.messages
    assert told.startswith(f"{root}/train: 1 folders cannot be read, and all in them is left out; the first: ")
    assert told.endswith(f"{root}/train/ant/more: Permission denied; ask for permission")


@pytest.mark.parametrize("below", ["train", "train/bee"])
def test_permission_denied_is_not_called_empty(root, below, monkeypatch):
    monkeypatch.setattr(os, "scandir", denied(root / below))
    with pytest.raises(UserError, match=f"{root}/{below} cannot be read: Permission denied"):
        open_folder(data(root), "train")


def test_classes_in_bytes_that_are_no_text_are_read_as_latin_1(root, capsys):
    os.rename(root / "train" / "bee", os.fsencode(root / "train") + b"/caf\xe9")
    os.rename(root / "val" / "bee", os.fsencode(root / "val") + b"/caf\xe9")
    for split, count in (("train", 9), ("val", 6)):
        images = open_folder(data(root), split)
        assert images.classes == ["Cat", "ant", "caf\u00e9"] and images.image(count - 1).size == (8, 6)
    save(root / "train" / "caf\u00e9" / "0.png")
    with pytest.raises(UserError, match=r"two folders have one name, in different bytes: .*udce9"):
        open_folder(data(root), "train")


def test_extensions_can_be_named(root):
    save(root / "train" / "ant" / "a.ppm")
    images = open_folder(data(root, extensions=[".ppm", ".PNG"]), "train")
    assert len(images) == 10


def test_names_outside_ascii_come_back(root):
    save(root / "train" / "ant" / "größe 蟻.png", 77)
    images = open_folder(data(root), "train")
    last = int(np.flatnonzero(images.labels == 1)[-1])
    assert images.name(last) == "ant/größe 蟻.png"
    assert np.asarray(images.image(last)).max() == 77


def test_a_missing_root_names_the_nearest_that_exists(root):
    with pytest.raises(UserError) as caught:
        open_folder(data(root / "trian" / "x"), "train")
    text = str(caught.value)
    assert text.startswith(f"data.root: {root}/trian/x does not exist; {root} holds train, val")
    assert text.endswith(f"did you mean {root}/train?")


def test_a_root_that_is_a_file_is_called_that(root):
    save(root / "one.png")
    with pytest.raises(UserError, match=r"data\.root: .*/one\.png is a file; name the folder"):
        open_folder(data(root / "one.png"), "train")


def test_a_missing_split_names_what_is_there(root):
    (root / "train").rename(root / "Training")
    with pytest.raises(UserError, match=r"has no folder train; .*holds Training, val"):
        open_folder(data(root), "train")


def test_an_empty_class_is_an_error_that_says_what_was_found(root):
    (root / "train" / "dog").mkdir()
    with pytest.raises(UserError, match=r"train/dog: no images in this class \(found: nothing\)"):
        open_folder(data(root), "train")
    for k in range(2):
        (root / "train" / "dog" / f"{k}.heic").write_bytes(b"x")
    with pytest.raises(UserError, match=r"train/dog: .*\(found: 2 x \.heic\).*data\.extensions"):
        open_folder(data(root), "train")


def test_a_split_without_classes_is_an_error(tmp_path):
    save(tmp_path / "train" / "a.png")
    with pytest.raises(UserError, match=r"train: no folders of classes; expected .*train/CLASS/IMAGE"):
        open_folder(data(tmp_path), "train")


def test_classes_that_differ_between_splits_are_named_on_both_sides(root):
    (root / "val" / "bee").rename(root / "val" / "bees")
    with pytest.raises(UserError) as caught:
        open_folder(data(root), "val")
    told = "bees (and bee only there: is it the same under another name?)"
    assert str(caught.value).startswith(f"{root}/val has classes that {root}/train has not: {told}")


def test_classes_of_val_that_look_like_those_of_train_are_told_apart(root):
    (root / "train" / "bee").rename(root / "train" / "caf\u00e9")
    (root / "val" / "bee").rename(root / "val" / "cafe\u0301")
    with pytest.raises(UserError, match=r"'cafe\\u0301' looks like 'caf\\xe9', which is only there.; rename or remove"):
        open_folder(data(root), "val")


def test_val_may_lack_classes_that_train_has(root, caplog):
    for k in range(2):
        (root / "val" / "bee" / f"{k}.png").unlink()
    (root / "val" / "bee").rmdir()
    for k in range(2):
        (root / "val" / "ant" / f"{k}.png").unlink()
    images = open_folder(data(root), "val")
    assert images.classes == ["Cat", "ant", "bee"] and images.labels.tolist() == [0, 0]
    assert "no images of 2 of 3 classes: ant, bee" in caplog.text
    for k in range(2):
        (root / "val" / "Cat" / f"{k}.png").unlink()
    with pytest.raises(UserError, match=r"val: no images in any class"):
        open_folder(data(root), "val")


def test_a_part_of_the_images_keeps_their_names_and_labels(root):
    images = open_folder(data(root), "train")
    chosen = images.subset(np.array([7, 2]))
    assert [chosen.name(k) for k in (0, 1)] == ["bee/1.png", "Cat/2.png"]
    assert chosen.labels.tolist() == [2, 0] and len(chosen) == 2
    assert np.asarray(chosen.image(1)).max() == 22


class ToTensor:
    def __call__(self, image, seed):
        import torch

        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_names_its_path_through_worker_processes(root, workers):
    broken = root / "train" / "bee" / "1.png"
    broken.write_bytes(broken.read_bytes()[:40])
    images = open_images(data(root), "train")
    sampler = MicroBatchSampler(NaturalOrder(9, 0), BatchLayout(9, 3), stop_step=3)
    with pytest.raises(UserError) as caught:
        list(TrainLoader(ImageReader(images, ToTensor(), 0), sampler, WorkerSettings(workers)))
    assert str(caught.value).startswith(f"{broken}: cannot be read as an image (")
    assert "Traceback" not in str(caught.value)


def test_the_reader_gives_a_dict_of_the_draw(root):
    from engine.data.batch_plan import Draw

    seeds = []
    reader = ImageReader(open_images(data(root), "train"), lambda image, seed: seeds.append(seed) or seed, 5)
    sample = reader[Draw(4, 2, 7)]
    assert {key: sample[key] for key in ("label", "index", "epoch", "position")} == {
        "label": 1, "index": 4, "epoch": 2, "position": 7,
    }  # fmt: skip
    reader[Draw(5, 2, 7)], reader[Draw(4, 3, 7)], reader[Draw(4, 2, 8)]
    assert seeds[0] == seeds[1] == sample["image"], "the seed follows from epoch and position"
    assert len(set(seeds)) == 3
