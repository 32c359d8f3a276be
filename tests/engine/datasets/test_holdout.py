"""A val out of train: shares, what follows from what, and several labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.datasets.class_folders import open_folder
from engine.datasets.holdout import held_out, part, rarest_class
from engine.datasets.labelled import FileImages, class_counts
from engine.datasets.sections import FolderData, TorchvisionData
from engine.errors import UserError
from tests.classification.small import write_images

SIZES = [100, 33, 10, 4, 3, 2, 1]


def listed(labels, names=None) -> FileImages:
    labels = np.asarray(labels)
    count = len(labels) if labels.ndim == 1 else labels.shape[1]
    names = names or [f"{index}.jpg" for index in range(len(labels))]
    return FileImages(Path("/"), [str(k) for k in range(count)], labels, names)


def single(sizes=SIZES) -> FileImages:
    return listed(np.repeat(np.arange(len(sizes)), sizes))


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [(0.2, [20, 7, 2, 1, 1, 1, 0]), (0.01, [1, 1, 1, 1, 1, 1, 0]), (0.95, [95, 31, 9, 3, 2, 1, 0])],
)
def test_each_class_gives_its_share_and_keeps_one(fraction, expected):
    images = single()
    held = held_out(images, fraction, 0)
    assert np.bincount(images.labels[held], minlength=len(SIZES)).tolist() == expected


def test_classes_that_val_cannot_have_are_named(caplog):
    config = FolderData(source="folder", root=Path("/"), val_fraction=0.2)
    part(single(), config, "train")
    assert not caplog.messages
    part(single(), config, "val")
    assert caplog.messages == ["data.val_fraction: classes of which no image is held out, since they have one: 6"]


def test_a_seed_decides_which():
    images = single()
    assert (held_out(images, 0.2, 3) == held_out(images, 0.2, 3)).all()
    assert (held_out(images, 0.2, 3) != held_out(images, 0.2, 4)).any()


def test_neither_the_order_of_a_list_nor_what_is_added_later_changes_the_choice_of_others():
    names = [f"image {index}.jpg" for index in range(200)]
    held = held_out(listed(np.zeros(200, np.int64), names), 0.2, 0)
    chosen = {name for name, taken in zip(names, held, strict=True) if taken}
    held = held_out(listed(np.zeros(200, np.int64), names[::-1]), 0.2, 0)
    assert {name for name, taken in zip(names[::-1], held, strict=True) if taken} == chosen
    more = [*names, *(f"new {index}.jpg" for index in range(20))]
    held = held_out(listed(np.zeros(220, np.int64), more), 0.2, 0)
    assert len(chosen - {name for name, taken in zip(more, held, strict=True) if taken}) < 8


def test_several_labels_count_by_the_rarest():
    labels = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1], [1, 0, 1], [0, 0, 0], [1, 0, 0]], np.uint8)
    assert rarest_class(listed(labels)).tolist() == [1, 0, 2, 2, 3, 0]
    rng = np.random.default_rng(0)
    labels = (rng.random((400, 6)) < [0.6, 0.3, 0.1, 0.05, 0.02, 0.01]).astype(np.uint8)
    images = listed(labels)
    held = held_out(images, 0.25, 0)
    assert class_counts(images.subset(np.flatnonzero(~held))).min() > 0
    shares = labels[held].sum(axis=0) / labels.sum(axis=0)
    assert np.abs(shares[:3] - 0.25).max() < 0.05 and held.mean() == pytest.approx(0.25, abs=0.02)


def test_a_class_whose_images_would_all_go_is_refused():
    shown = np.zeros((6, 4), np.uint8)
    for pair in range(3):  # class 3 is seen beside rarer ones only, in one image of two each
        shown[2 * pair : 2 * pair + 2, pair] = 1
        shown[2 * pair, 3] = 1
    refused = 0
    for seed in range(40):
        data = TorchvisionData(source="mnist", root="/", val_fraction=0.5, split_seed=seed)
        try:
            assert class_counts(part(listed(shown), data, "train"))[3] > 0
        except UserError as error:
            assert "all images that show 3 would be held out; choose another data.split_seed" in str(error)
            refused += 1
    assert 0 < refused < 20


def test_nothing_to_hold_out_is_refused():
    with pytest.raises(UserError, match="no class has two images"):
        part(single([1, 1]), TorchvisionData(source="mnist", root="/", val_fraction=0.5), "val")


def test_a_train_folder_without_val(tmp_path):
    write_images(tmp_path / "train", {"ant": 10, "bee": 2})
    data = FolderData(source="folder", root=tmp_path)
    with pytest.raises(
        UserError, match=r"has no folder val or validation; .*data\.val_fraction=0\.1 would hold out a p"
    ):
        open_folder(data, "val")
    data = data.model_copy(update={"val_fraction": 0.2})
    train, val = open_folder(data, "train"), open_folder(data, "val")
    assert class_counts(train).tolist() == [8, 1] and class_counts(val).tolist() == [2, 1]
    both = [images.name(index) for images in (train, val) for index in range(len(images))]
    assert len(set(both)) == 12
    assert val.image(2).size == (20, 20) and val.path(2) == tmp_path / "train" / val.name(2)
    with pytest.raises(UserError, match="has no folder test"):
        open_folder(data, "test")
    write_images(tmp_path / "val", {"ant": 1})
    with pytest.raises(UserError, match=r"data\.val_fraction: .* has a val of its own"):
        open_folder(data, "val")
