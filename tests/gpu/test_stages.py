"""The stages of ``make test-gpu`` as tests: on a GPU where there is one, and all of them on a CPU in a rehearsal."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gpu.__main__ import NO_GPU, gpu_visible
from tests.gpu.runner import Stage, run_stages, table
from tests.gpu.stages import STAGES


def passes(stage: Stage, device: str, folder: Path, seconds: float) -> None:
    (result,) = run_stages([stage], device, folder, seconds)
    assert result.outcome == "passed", table([result])


@pytest.mark.full
@pytest.mark.gpu
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_on_a_gpu(stage: Stage, tmp_path: Path) -> None:
    if not gpu_visible():
        pytest.skip(NO_GPU)
    passes(stage, "cuda", tmp_path, stage.seconds)


@pytest.mark.full
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_rehearsed_on_a_cpu(stage: Stage, tmp_path: Path) -> None:
    passes(Stage(stage.name, stage.work, 600), "cpu", tmp_path, 600)
