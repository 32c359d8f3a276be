"""The errors that gloo raises when another rank is gone or late, as they really are."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from engine.distributed.heartbeat import Place
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.requeue.retry import failure_of, is_communication_error, timed_out, worth_retrying
from tests.engine.watchdog.watched import running

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
            ranks.from_main(lambda: "something")
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


def device_error(said: str) -> Exception:
    """As torch raises it, with advice below that names an assert whatever it was."""
    advice = (
        "CUDA kernel errors might be asynchronously reported\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side"
    )
    return torch.AcceleratorError(f"CUDA error: {said}\n{advice} assertions.\n")


@pytest.mark.parametrize(
    "error",
    [
        dist.DistBackendError("NCCL error in: ProcessGroupNCCL.cpp:3690, unhandled system error, NCCL version 2.29.3"),
        dist.DistBackendError(
            "NCCL communicator was aborted on rank 1. Original reason: watchdog collective timed out"
        ),
        dist.DistNetworkError("The client socket has timed out after 60000ms while trying to connect to (n0, 29500)."),
        dist.DistStoreError("wait timeout after 60000ms, keys: /worker/1"),
        RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.1]:4711"),
        device_error("uncorrectable ECC error encountered"),
        device_error("uncorrectable NVLink error detected during the execution"),
        device_error("unspecified launch failure"),
        device_error("an illegal memory access was encountered"),
        device_error("CUDA-capable device(s) is/are busy or unavailable"),
        device_error("no CUDA-capable device is detected"),
        device_error("unknown error"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(...)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    ],
    ids=str,
)
def test_what_the_network_or_a_card_has_failed_is_worth_another_start(error: Exception) -> None:
    assert worth_retrying(error)


@pytest.mark.parametrize(
    "error",
    [
        UserError("data.root: nothing there"),
        ValueError("NCCL error"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        device_error("out of memory"),
        device_error("device-side assert triggered"),
        device_error("no kernel image is available for execution on the device"),
        device_error("invalid configuration argument"),
        device_error("something that no table knows"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        dist.DistBackendError("NCCL error in: NCCLUtils.cpp:77, invalid usage, Duplicate GPU detected : rank 1"),
        dist.DistBackendError("NCCL error: unhandled cuda error, Failed to CUDA malloc 4194304 bytes"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("an unavailable unspecified launch failure of our own"),
    ],
    ids=str,
)
def test_what_would_come_again_is_not(error: Exception) -> None:
    assert not worth_retrying(error)


def test_the_failure_of_a_rank_says_whether_another_start_is_worth_it() -> None:
    place = Place(7, 2, "backward")
    broken = failure_of(1, "n1", place, device_error("uncorrectable ECC error encountered"))
    assert broken.retry and broken.reason.startswith("rank 1 on n1 failed at step 7 (backward): AcceleratorError: CUDA")
    assert not failure_of(1, "n1", place, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")).retry
