"""Pipes where a file is wanted: said at once, whichever key names them. Nobody ever writes into these."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from detection.data.coco import split_files
from engine.checkpoints import store
from engine.config.yaml_reader import read_file
from engine.csv_table import read_table
from engine.errors import UserError
from engine.model.pretrained import weights_file
from tests.detection.coco_files import coco_data, write_split

READS: dict[str, Callable[[Path], object]] = {
    "config": read_file,
    "csv": lambda file: read_table(file, {}),
    "weights": weights_file,
    "checkpoint": store.read,
}


@pytest.mark.parametrize("what", READS)
def test_a_pipe_is_called_one(what: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"pipe\b.* is a named pipe"):
        READS[what](tmp_path / "pipe")


def test_a_checkpoint_that_is_a_pipe_does_not_verify(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "best.pt")
    assert store.verify(tmp_path / "best.pt") == "is a named pipe, no file"


def test_annotations_that_are_a_pipe(tmp_path: Path) -> None:
    write_split(tmp_path, "train", [])
    (tmp_path / "train.json").unlink()
    os.mkfifo(tmp_path / "train.json")
    with pytest.raises(UserError, match=r"data\.train\.annotations: there is no file .* \(it is a named pipe\)"):
        split_files(coco_data(tmp_path), "train")
