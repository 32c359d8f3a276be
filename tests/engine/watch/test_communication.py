"""The errors that gloo raises when another rank is gone or late, as they really are."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from engine.dist import Ranks
from engine.watch.communication import is_communication_error, timed_out
from tests.engine.watch.watched import running

SECOND = timedelta(seconds=1)


def wait_for_the_other(ranks: Ranks, folder: Path, how: str, operation: str) -> None:
    group = dist.new_group(timeout=SECOND)
    if ranks.rank == 1:
        deadline = time.monotonic() + 20
        while how == "late" and not (folder / "error").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os._exit(0)
    try:
        if operation == "reduce":
            dist.all_reduce(torch.ones(1), group=group)
        elif operation == "gather":
            dist.all_gather([torch.empty(1), torch.empty(1)], torch.ones(1), group=group)
        else:
            ranks.main_decides(lambda: "something")
    except BaseException as error:
        known = f"{is_communication_error(error)} {timed_out(error)} {type(error).__name__}: {error}"
        (folder / "aside").write_text(known)
        (folder / "aside").rename(folder / "error")
    os._exit(0)


@pytest.mark.parametrize(
    "how, operation",
    [("gone", "reduce"), ("gone", "gather"), ("gone", "decide"), ("late", "reduce"), ("late", "gather")],
)
def test_the_errors_of_gloo_are_known(how: str, operation: str) -> None:
    with running(2, wait_for_the_other, how, operation) as group:
        text = group.wait_for("error", within=30).read_text()
        assert text.startswith(f"True {how == 'late'} "), text


def test_other_errors_are_a_ranks_own() -> None:
    for error in (ValueError("Connection closed by peer"), RuntimeError("mat1 and mat2 shapes cannot be multiplied")):
        assert not is_communication_error(error)
    assert not is_communication_error(RuntimeError("CUDA error: out of memory"))
