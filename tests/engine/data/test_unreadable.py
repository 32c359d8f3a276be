"""Storage that fails for a while, and images that can never be read."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.data import read_ahead
from engine.data.batch_plan import BatchLayout, Draw, NaturalOrder
from engine.data.loaders import EvalLoader, MicroBatchSampler, TrainLoader
from engine.data.unreadable import Patience, Troubles, UnreadableError, require_readable
from engine.data.workers import WorkerSettings
from engine.datasets.dataset import ImageReader, open_images
from engine.datasets.sections import FolderData
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.errors import UserError

ALONE = Ranks(Layout(), torch.device("cpu"))


@pytest.fixture
def reader(tmp_path: Path) -> ImageReader:
    """Six images, whose pixels are their numbers."""
    for split, count in (("train", 6), ("val", 1)):
        for number in range(count):
            file = tmp_path / split / "ant" / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (number, 0, 0)).save(file)
    images = open_images(FolderData(source="folder", root=tmp_path), "train")
    return ImageReader(images, lambda image, seed: torch.from_numpy(np.array(image)), seed=0)


def failing(monkeypatch: pytest.MonkeyPatch, times: int, code: int = errno.EIO) -> list[str]:
    """Lets the first ``times`` openings of 3.png fail."""
    failed, opened = list[str](), os.open

    def open_(path: Any, *more: Any, **keys: Any) -> int:
        if str(path).endswith("3.png") and len(failed) < times:
            failed.append(str(path))
            raise OSError(code, os.strerror(code), str(path))
        return opened(path, *more, **keys)

    monkeypatch.setattr(read_ahead.os, "open", open_)
    return failed


def colour(sample: dict[str, Any]) -> int:
    return int(sample["image"][0, 0, 0])


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_what_the_storage_does_not_give_at_once_is_tried_again(
    reader: ImageReader, monkeypatch: pytest.MonkeyPatch, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    failed, now, pauses, told = failing(monkeypatch, 3, code), [0.0], list[float](), list[tuple[str, bool]]()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    sample = Patience(1.0).sample(reader, Draw(3, 0, 0), told, sleep, lambda: now[0])
    assert colour(sample) == 3 and len(failed) == 3 and pauses == [0.1, 0.2, 0.4]
    troubles = Troubles()
    troubles.note(told)
    assert troubles.retries == 3 and failed[0] in caplog.text


def test_what_it_does_not_give_in_time_ends_the_run(reader: ImageReader, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, 10**6)
    now = [0.0]
    with pytest.raises(UserError, match=r"3.png: cannot be read .Input/output error.*data.read_timeout_seconds"):
        Patience(1.0).sample(reader, Draw(3, 0, 0), [], lambda s: now.__setitem__(0, now[0] + s), lambda: now[0])
    assert 0.5 < now[0] <= 1.0


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_image_that_may_be_skipped_is_replaced_alike_by_any_number_of_workers(
    reader: ImageReader, tmp_path: Path, workers: int
) -> None:
    (tmp_path / "train" / "ant" / "3.png").write_bytes(b"no image")
    sampler = MicroBatchSampler(NaturalOrder(6, 1), BatchLayout(6, 2), stop_step=6)
    settings = WorkerSettings(workers, read_threads=2, patience=Patience(max_unreadable=1))
    seen = [image[0, 0, 0].item() for batch in TrainLoader(reader, sampler, settings) for image in batch.data["image"]]
    order = [int(index) for epoch in (0, 1) for index in NaturalOrder(6, 1)(epoch)]
    assert seen == [4 if index == 3 else index for index in order]
    assert [Path(file).name for file in settings.troubles.unreadable] == ["3.png"]
    require_readable(settings.patience, settings.troubles, ALONE)
    settings.troubles.unreadable.add("other.png")
    with pytest.raises(UserError, match=r"data.max_unreadable: 2 images .*more than 1; the first: .*3.png"):
        require_readable(settings.patience, settings.troubles, ALONE)


def test_by_default_and_in_evaluations_none_may_be_skipped(reader: ImageReader, tmp_path: Path) -> None:
    (tmp_path / "train" / "ant" / "3.png").unlink()
    with pytest.raises(UnreadableError, match=r"3.png: no such image"):
        Patience().sample(reader, Draw(3, 0, 0), [])
    settings = WorkerSettings(patience=Patience(max_unreadable=5))
    with pytest.raises(UserError, match=r"3.png: no such image"):
        list(EvalLoader(reader, 6, 2, settings, ALONE))


def test_words_are_few(caplog: pytest.LogCaptureFixture) -> None:
    Troubles().note([("a.png", False)] * 1000)
    assert len(caplog.messages) == 5 + 7 and caplog.messages[-1].endswith("512 such so far")
