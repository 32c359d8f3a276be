"""Whole optimizer steps, saving and loading on a CUDA device that is none, see :mod:`tests.fake_cuda`.

Gradients are set by hand, as torch's autograd engine asks the device's driver before it begins. Everything between is
the trainer's own: clipping, loss scaling, skipped steps, moving average, batch norm, unfreezing.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.optim import get_optimizer_info, list_optimizers
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._pytree import tree_map_only

from engine.checkpoints.host_copy import Snapshot, tensors_in
from tests.fake_cuda import cuda_stubs, run_apart
from tests.fake_training import FUSED, StepWatch, gradients_by_hand, small_task, trainer_of, watched_steps

COMPILED = ("kron", "kronc", "kronw")
"""Optimizers of timm that compile their own functions, which torch does not do for such tensors."""
QUICK = ("adafactor", "adopt", "lamb", "laprop", "lion", "muon", "nadam", "sgdp")
OTHERS = [
    name
    for name in list_optimizers()
    if not name.startswith(("fused", "bnb"))  # of packages that need a GPU
    and not get_optimizer_info(name).second_order
    and name not in (*FUSED, *COMPILED)
]


def places(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Devices of the state's tensors."""
    return [{k: v.device for k, v in entry.items() if isinstance(v, Tensor)} for entry in optimizer.state.values()]


def train_save_and_go_on(name: str, precision: str) -> None:
    fake = FakeTensorMode()
    with cuda_stubs() as stream:
        task, resumed_task = small_task(fake), small_task(fake)
        with fake, gradients_by_hand(task.model):
            trainer = trainer_of(task, name, precision)
            assert trainer.learner.scaler.is_enabled() == (precision == "fp16")
            watched_steps(trainer, name, 4)
            assert len({g["lr_scale"] for g in trainer.learner.optimizer.param_groups}) == 3
            with StepWatch(trainer.learner.optimizer) as watch:
                state = trainer.state_dict()
            assert len(watch.reads) == 2 * (precision == "fp16"), watch.reads  # the scale and its age
            saved = Snapshot().take(state)
            stream.synchronize.assert_called_once_with()
            assert {tensor.device.type for tensor in tensors_in(saved)} == {"cpu"}
        with fake, gradients_by_hand(resumed_task.model):
            resumed = trainer_of(resumed_task, name, precision)
            resumed.load_state_dict(tree_map_only(Tensor, Tensor.contiguous, saved))  # of a run of another layout
            assert places(resumed.learner.optimizer) == places(trainer.learner.optimizer)
            watched_steps(resumed, name, 1)


def every_optimizer(names: list[str], precision: str) -> None:
    faults = {}
    for name in names:
        try:
            train_save_and_go_on(name, precision)
        except Exception:
            faults[name] = traceback.format_exc()
    assert not faults, "\n".join([*faults.values(), *faults])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_fused_steps_keep_to_the_device(precision: str, tmp_path: Path) -> None:
    run_apart(every_optimizer, tmp_path, list(FUSED), precision)


def others() -> list[Any]:
    """Optimizers that are not fused; quickly those that differ in what they keep and read."""
    rest = [name for name in OTHERS if name not in QUICK]
    return [pytest.param(list(QUICK), id="some"), pytest.param(rest, id="rest", marks=pytest.mark.full)]


@pytest.mark.parametrize("names", others())
def test_other_optimizers_wait_for_the_device_once(names: list[str], tmp_path: Path) -> None:
    run_apart(every_optimizer, tmp_path, names, "fp32")
