"""CSV files as data: classes and labels of each split, and everything that can be wrong with the rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.datasets.csv_labels import class_order, open_csv
from engine.datasets.dataset import open_images
from engine.datasets.labelled import class_counts
from engine.datasets.sections import CsvData
from engine.errors import UserError
from tests.classification.small import write_images

ONE = """\
file,species,split
cod/000.jpg,cod,train
cod/001.jpg,cod,val
hake/000.jpg,hake,train
hake/001.jpg,hake,Validation
hake/002.jpg,hake,test
"""
MARKS = """\
file,cod,hake,crab
a,1,0,0
b,1.0,true,0
c,0,0,False
d,0,1,1
"""


@pytest.fixture
def data(tmp_path):
    """A configuration for a table with this text."""

    def make(text: str, **keys) -> CsvData:
        file = tmp_path / "fish.csv"
        file.write_text(text)
        given = {"source": "csv", "root": str(tmp_path), "csv": str(file), "label_columns": ["species"], **keys}
        return CsvData.model_validate(given)

    return make


def names(images) -> list[str]:
    return [images.name(index) for index in range(len(images))]


def test_splits_of_one_table(data, tmp_path):
    write_images(tmp_path, {"cod": 2, "hake": 3})
    config = data(ONE, split_column="split")
    opened = {split: open_images(config, split) for split in ("train", "val", "test")}
    assert [images.classes for images in opened.values()] == [["cod", "hake"]] * 3
    assert {split: names(images) for split, images in opened.items()} == {
        "train": ["cod/000.jpg", "hake/000.jpg"], "val": ["cod/001.jpg", "hake/001.jpg"], "test": ["hake/002.jpg"],
    }  # fmt: skip
    assert [images.labels.tolist() for images in opened.values()] == [[0, 1], [0, 1], [1]]
    assert opened["train"].labels.dtype == np.int64 and not opened["train"].multi_label
    cod, hake = (np.asarray(opened["val"].image(k)).mean() for k in (0, 1))
    assert cod < 80 < hake, "the images are those of their names"


def test_a_table_for_each_split(data, tmp_path):
    for split, text in {"train": "a,x\nb,y", "val": "c,y", "test": "d,x"}.items():
        (tmp_path / f"{split}.csv").write_text(f"file,species\n{text}\n")
    files = {split: str(tmp_path / f"{split}.csv") for split in ("train", "val", "test")}
    config = data("", csv=files)
    opened = {split: open_csv(config, split) for split in files}
    assert {split: list(zip(names(p), p.labels.tolist(), strict=True)) for split, p in opened.items()} == {
        "train": [("a", 0), ("b", 1)], "val": [("c", 1)], "test": [("d", 0)],
    }  # fmt: skip


def test_classes_are_sorted_and_numbers_as_numbers():
    assert class_order(["10", "9", "9", "-1", "0.5"]) == ["-1", "0.5", "9", "10"]
    assert class_order(["b", "10", "9", "a", "B"]) == ["10", "9", "B", "a", "b"]
    assert class_order(["nan", "3"]) == ["3", "nan"]


def test_classes_in_an_order_of_ones_own(data):
    assert open_csv(data(ONE, split_column="split", classes=["hake", "cod"]), "val").labels.tolist() == [1, 0]


def test_many_species_of_two_images(data):
    rows = [f"{k}-{copy}.jpg,species {k:04d}" for k in range(1758) for copy in range(2)]
    config = data("\n".join(["file,species", *rows]), val_fraction=0.1)
    train, val = open_csv(config, "train"), open_csv(config, "val")
    assert len(train.classes) == 1758 and train.classes == val.classes
    assert set(class_counts(train).tolist()) == set(class_counts(val).tolist()) == {1}
    assert not set(names(train)) & set(names(val))


def test_several_columns_of_0_and_1(data):
    images = open_csv(data(MARKS, label_columns=["hake", "cod", "crab"]), "train")
    assert images.multi_label and images.labels.dtype == np.uint8
    assert images.classes == ["hake", "cod", "crab"]
    assert images.labels.tolist() == [[0, 1, 0], [1, 1, 0], [0, 0, 0], [1, 0, 1]]
    assert class_counts(images).tolist() == [2, 2, 1]


def test_several_classes_in_one_column(data):
    config = data("file,species\na,hake| cod\nb,cod\nc,\nd,cod|cod|\n", label_separator="|")
    images = open_csv(config, "train")
    assert images.classes == ["cod", "hake"] and images.multi_label
    assert images.labels.tolist() == [[1, 1], [1, 0], [0, 0], [1, 0]]


def test_repeated_rows_count_once_and_are_told(data, caplog):
    table = data(
        "file,species,split\na.jpg,cod,train\nb.jpg,hake,train\nc.jpg,cod,val\n./a.jpg,cod,train\n",
        split_column="split",
    )
    assert names(open_csv(table, "train")) == ["a.jpg", "b.jpg"]
    assert len(open_csv(table, "val")) == 1
    assert caplog.messages == ["data.csv: rows that repeat others and count once: 1"]


def test_a_test_set_needs_no_training_rows_where_the_classes_are_known(data):
    table = data("file,species,split\na,hake,test\nb,cod,test\n", split_column="split")
    images = open_images(table, "test", ["cod", "eel", "hake"])
    assert images.classes == ["cod", "eel", "hake"] and images.labels.tolist() == [2, 0]
    with pytest.raises(UserError, match=r"unknown class 'cod' .*\nthe model was not trained on it; there are 2: eel"):
        open_images(table, "test", ["eel", "hake"])
    for split, known in (("test", None), ("val", ["cod", "hake"])):
        with pytest.raises(UserError, match="no row is for"):
            open_images(table, split, known)


def test_a_image_in_two_splits_is_found_however_it_is_written(data, tmp_path):
    for other in (f"../{tmp_path.name}/p.jpg", f"{tmp_path}/./p.jpg"):
        table = data(f"file,species,split\np.jpg,cod,train\n{other},cod,val\n", split_column="split")
        with pytest.raises(UserError, match=r"fish\.csv:3: .*p\.jpg has split 'val' here and 'train' in"):
            open_csv(table, "train")


def test_paths_may_be_absolute(data, tmp_path):
    images = open_csv(data("file,species\n/else/a.jpg,cod\nb.jpg,hake\n"), "train")
    assert [images.path(0), images.path(1)] == [Path("/else/a.jpg"), tmp_path / "b.jpg"]


COLUMNS = {"label_columns": ["cod", "hake", "crab"]}


@pytest.mark.parametrize(
    ("text", "keys", "split", "message"),
    [
        (ONE.replace("hake,train", "hake,dev"), {"split_column": "split"}, "train",
         r"fish\.csv:4: split: must be train, val \(or validation\) or test, not 'dev'"),
        (ONE.replace("hake,train", ",train"), {"split_column": "split"}, "train",
         r"fish\.csv:4: species: must be the name of a class, not ''"),
        (ONE.replace("hake,test", "nan,test"), {"split_column": "split"}, "train",
         r"fish\.csv:6: species: must be the name of a class, not 'nan'"),
        (ONE.replace("hake/000.jpg", ""), {"split_column": "split"}, "train",
         r"fish\.csv:4: file: must be the path of an image, not ''"),
        (ONE.replace("cod,val", "cot,val"), {"split_column": "split"}, "train",
         r"fish\.csv:3: unknown class 'cot' \(val; 1 rows in all\); did you mean 'cod'\?\n"
         r"the training images show no such class; there are 2: cod, hake"),
        (ONE, {"split_column": "split", "classes": ["cod", "heak"]}, "train",
         r"unknown class 'hake' .*did you mean 'heak'\?\ndata\.classes names no such class"),
        (ONE, {"split_column": "split", "classes": ["cod", "eel", "hake"]}, "val",
         r"1 of 3 classes have no training images: eel; add some, or take them out of data\.classes"),
        (ONE, {}, "val", r"no row is for val; name a data\.split_column .*val_fraction=0\.1 would hold out a part"),
        (ONE, {"split_column": "split", "val_fraction": 0.5}, "val", r"data\.val_fraction: the table has a val"),
        (ONE.replace("test", "val"), {"split_column": "split"}, "test", "no row is for test"),
        (ONE.replace("train", "test"), {"split_column": "split"}, "val", "no row is for training; .*found: test, val"),
        (f"{ONE}cod/000.jpg,hake,train\n", {"split_column": "split"}, "train",
         r"fish\.csv:7: cod/000\.jpg has species 'hake' here and 'cod' in .*fish\.csv:2\nlist each image once"),
        (f"{ONE}cod/000.jpg,cod,val\n", {"split_column": "split"}, "train",
         r"fish\.csv:7: cod/000\.jpg has split 'val' here and 'train' in"),
        (f"{MARKS}e,2,0,0\n", COLUMNS, "train", r"fish\.csv:6: cod: must be 0 or 1, not '2'"),
        (f"{MARKS}e,1,0,\n", COLUMNS, "train", r"fish\.csv:6: crab: must be 0 or 1, not ''"),
        (f"{MARKS}e,1,0,NaN\n", COLUMNS, "train", r"fish\.csv:6: crab: must be 0 or 1, not 'NaN'"),
        (MARKS.replace("d,0,1,1", "d,0,1,0"), COLUMNS, "train",
         r"1 of 3 classes have no training images: crab; .*take them out of data\.label_columns"),
        ("file,species\n" + "".join(f"{k},\n" for k in range(7)), {}, "train", r"\nand 2 more rows$"),
        ("file,species\na\0,cod\n", {}, "train", r"fish\.csv:2: file: must be the path of an image, not 'a\\x00'"),
        ("file,species\na,cod|nan\nb,NaN\n", {"label_separator": "|"}, "train", r"fish\.csv:3: species: must be"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_named(data, text, keys, split, message):
    with pytest.raises(UserError, match=message):
        open_csv(data(text, **keys), split)


def test_a_quote_that_nobody_has_closed_is_told_once(data, tmp_path, caplog):
    notes = {"split": "note", "train": "1", "val": "2", "Validation": '"3', "test": '4"'}
    text = ONE
    for word, note in notes.items():
        text = text.replace(f",{word}\n", f",{word},{note}\n")
    config = data(text, split_column="split")
    for split in ("train", "val"):
        open_csv(config, split)
    assert caplog.messages == [
        "data.csv: rows with a cell in quotes that reads like rows of its own: 1; the first ends in "
        f"{tmp_path}/fish.csv:6; is a quote not closed?"
    ]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"label_columns": []}, "label_columns"),
        ({"label_columns": ["a", "b"], "label_separator": "|"}, "label_separator is for a single label column"),
        ({"label_columns": ["a", "b"], "classes": ["x"]}, "classes is for a single label column"),
        ({"label_columns": ["a", "b", "a"]}, "the class 'a' is named twice"),
        ({"csv": {"train": "a.csv"}, "split_column": "split"}, "split_column is for a single table"),
        ({"csv": {"train": "a.csv", "val": "b.csv"}, "val_fraction": 0.1}, "val_fraction and csv.val are alternatives"),
        ({"csv": {"val": "b.csv"}}, "train"),
        ({"sampling": "balanced", "oversample": 0.1}, "oversample and sampling: balanced are alternatives"),
        ({"delimiter": ",,"}, "delimiter"),
        ({"pad_fill": [0, 0, 300]}, "pad_fill"),
    ],
)
def test_settings_that_contradict_each_other(data, keys, message):
    with pytest.raises(ValueError, match=message):
        data(ONE, **keys)
