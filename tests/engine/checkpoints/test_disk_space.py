"""Room for checkpoints: how large they will be, and what is said when it does not suffice."""

from __future__ import annotations

import os
import re
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from torch import nn

from engine.checkpoints import disk_space, store
from engine.checkpoints.disk_space import (
    check_free_space,
    estimate_checkpoint_bytes,
    free_bytes,
    shown_bytes,
)
from engine.errors import UserError
from engine.training.optimizer import named_state

MB = 10**6
Usage = namedtuple("Usage", "total used free")


def network() -> nn.Sequential:
    layers = [module for _ in range(10) for module in (nn.Linear(200, 200), nn.BatchNorm1d(200))]
    return nn.Sequential(*layers)


def with_free(monkeypatch: pytest.MonkeyPatch, free: int) -> list[Path]:
    """Lets every file system have ``free`` bytes; returns where was asked."""
    asked: list[Path] = []

    def usage(path: Path) -> Usage:
        asked.append(path)
        return Usage(10 * free, 9 * free, free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    return asked


@pytest.mark.parametrize("ema", [False, True], ids=["no average", "average"])
@pytest.mark.parametrize("name, options", [("AdamW", {}), ("SGD", {"momentum": 0.9})], ids=["AdamW", "SGD"])
def test_the_estimate_is_an_upper_bound(name: str, options: dict[str, float], ema: bool, tmp_path: Path) -> None:
    model, average = network(), network() if ema else None
    models = [model, average] if average else [model]
    model[0].requires_grad_(False)
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.1, **options)
    before = estimate_checkpoint_bytes(models, optimizer)
    model(torch.randn(4, 200)).sum().backward()
    optimizer.step()
    content = {"model": model.state_dict(), "ema": average and average.state_dict()}
    path = store.save(tmp_path, 1, {"format": 1, **content, "optimizer": named_state(optimizer, model)}, keep=2)
    size, after = path.stat().st_size, estimate_checkpoint_bytes(models, optimizer)
    assert size < after < size + 1.5 * MB
    assert size < before
    if name == "AdamW":
        assert before == pytest.approx(after, abs=1000)


def test_room_for_all_that_will_lie_there_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_free(monkeypatch, 4 * 100 * MB)
    check_free_space(tmp_path / "checkpoints", 100 * MB, keep=2)
    with pytest.raises(UserError) as error:
        check_free_space(tmp_path / "checkpoints", 100 * MB + 1, keep=2)
    text = str(error.value)
    assert re.search(rf"{tmp_path}/checkpoints: 400 MB free, but .* need 400 MB more \(each 100 MB", text)
    assert all(cure in text for cure in ("make room", "checkpoint.keep=2", "experiment.root"))
    with pytest.raises(UserError):
        check_free_space(tmp_path, 100 * MB, keep=3)


def test_what_lies_there_counts_as_room_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("step_00000001.pt", 100), ("step_00000002.pt", 100), ("step_00000003.pt.part", 40)):
        (tmp_path / name).write_bytes(bytes(size))
    os.link(tmp_path / "step_00000002.pt", tmp_path / "last.pt")
    (tmp_path / "best.pt").write_bytes(bytes(100))
    (tmp_path / "mine.pt").write_bytes(bytes(1000))
    with_free(monkeypatch, 60)
    check_free_space(tmp_path, 100, keep=2)
    with_free(monkeypatch, 59)
    with pytest.raises(UserError, match="0 MB free"):
        check_free_space(tmp_path, 100, keep=2)
    with_free(monkeypatch, 0)
    check_free_space(tmp_path, 10, keep=2)


def test_the_nearest_folder_that_exists_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = with_free(monkeypatch, 5)
    assert free_bytes(tmp_path / "not" / "yet" / "made") == 5
    monkeypatch.chdir(tmp_path)
    free_bytes(Path("none"))
    assert asked == [tmp_path, tmp_path]


def test_a_real_file_system_answers(tmp_path: Path) -> None:
    assert 0 < free_bytes(tmp_path) <= shutil.disk_usage("/").total + shutil.disk_usage(tmp_path).total
    with pytest.raises(UserError, match=r"GB free, but checkpoints need [\d.]+ GB more"):
        check_free_space(tmp_path, disk_space.free_bytes(tmp_path) + 10**9, keep=2)


def test_sizes_are_shown_in_their_unit() -> None:
    assert [shown_bytes(n) for n in (0, 340 * MB, 999 * MB, 1400 * MB)] == ["0 MB", "340 MB", "999 MB", "1.4 GB"]
