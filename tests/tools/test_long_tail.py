from __future__ import annotations

import csv

import pytest

from engine.datasets.csv_labels import open_csv
from engine.datasets.labelled import class_counts
from engine.datasets.sections import CsvData
from engine.errors import UserError
from tests.classification.small import write_images
from tools.long_tail import main, tail_sizes


def test_sizes_fall_from_most_to_least_by_equal_factors():
    assert tail_sizes([900, 800, 700], 7, 700) == [700, 70, 7]
    assert tail_sizes([20, 100, 40], 5, 20) == [5, 20, 10]
    assert tail_sizes([9], 3, 8) == [8]
    with pytest.raises(UserError, match="a class would have to keep 10 images and has 9; choose less"):
        tail_sizes([30, 9, 8], 5, 20)


def test_the_file_is_a_data_set_with_few_images_of_some_classes_and_all_of_val(tmp_path, capsys):
    write_images(tmp_path / "data" / "train", {"a": 3, "b": 8, "c": 5})
    write_images(tmp_path / "data" / "val", {"a": 2, "b": 2, "c": 2})
    command = ["--root", str(tmp_path / "data"), "--least", "2", "--most", "8"]
    for name, seed in (("1.csv", "0"), ("2.csv", "0"), ("3.csv", "1")):
        assert main([*command, "--output", str(tmp_path / "new" / name), "--seed", seed]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "a 2, b 8, c 4"
    texts = [(tmp_path / "new" / name).read_text() for name in ("1.csv", "2.csv", "3.csv")]
    assert texts[0] == texts[1] != texts[2]
    config = CsvData(
        source="csv",
        root=tmp_path / "data",
        csv=tmp_path / "new" / "1.csv",
        label_columns=["label"],
        split_column="split",
    )
    train, val = open_csv(config, "train"), open_csv(config, "val")
    assert class_counts(train).tolist() == [2, 8, 4]
    assert class_counts(val).tolist() == [2, 2, 2]
    assert all(train.path(index).is_file() for index in range(len(train)))
    assert next(csv.reader(texts[0].splitlines())) == ["file", "label", "split"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--root", "nowhere", "--output", "x.csv"], "nowhere does not exist"),
        (["--root", ".", "--output", "x.csv", "--least", "9", "--most", "8"], "must be 1 <= least <= most"),
    ],
)
def test_wrong_input_ends_with_2(tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_only_lists_are_overwritten(tmp_path, capsys):
    write_images(tmp_path / "data" / "train", {"a": 6, "b": 6})
    write_images(tmp_path / "data" / "val", {"a": 2, "b": 2})
    command = ["--root", str(tmp_path / "data"), "--least", "2", "--most", "4", "--output"]
    picture, output = next((tmp_path / "data").rglob("*.jpg")), tmp_path / "list.csv"
    before = picture.read_bytes()
    assert main([*command, str(picture)]) == 2
    assert f"{picture} is there already and holds no such list" in capsys.readouterr().err
    assert picture.read_bytes() == before
    assert main([*command, str(output)]) == main([*command, str(output)]) == 0
