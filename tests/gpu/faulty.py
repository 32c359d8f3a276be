"""``python -m tests.gpu.faulty --config FILE …``: a training of classification in which a rank goes wrong.

``FAULT="assert 0 3"`` in the environment: in its third step since this start, rank 0 indexes a tensor out of range on
the device. ``hang`` waits for a device that is busy, ``kill`` sends SIGKILL to the rank. Without it nothing goes wrong.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import torch
from torch import Tensor, nn

from classification.config import ClassificationConfig
from classification.spec import SPEC
from classification.task import ClassificationTask
from engine.commands.entry import train
from engine.distributed.ranks import Ranks

BUSY_CYCLES = 2**37
"""Of a kernel that hangs: over a minute, after which the card is free again whatever became of the process."""


class FaultyTask(ClassificationTask):
    """See the module."""

    def __init__(self, config: ClassificationConfig, ranks: Ranks) -> None:
        super().__init__(config, ranks)
        fault, rank, step = (os.environ.get("FAULT") or "none 0 0").split()
        self._fault = fault if ranks.rank == int(rank) else "none"
        self._steps_left = int(step)

    def training_step(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self._steps_left -= 1
        if self._steps_left == 0:
            go_wrong(self._fault, batch["image"].device)
        return super().training_step(model, batch)


def go_wrong(fault: str, device: torch.device) -> None:
    """Does what ``fault`` says; nothing for another word."""
    match fault:
        case "assert":
            torch.zeros(4, device=device)[torch.full((1,), 9, device=device)]
        case "hang" if device.type == "cuda":
            torch.cuda._sleep(BUSY_CYCLES)
            torch.cuda.synchronize()
        case "hang":
            time.sleep(3600)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    train(replace(SPEC, task=FaultyTask))
