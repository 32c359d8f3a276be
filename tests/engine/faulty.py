"""``python -m tests.engine.faulty --config FILE …``: a training of the toy task in which a rank goes wrong.

``FAULT="raise 1 5"`` in the environment: rank 1 raises an error in its step 5, counted from this start. Others:
``user`` raises a UserError, ``kill`` sends SIGKILL to the rank, ``sleep`` sleeps for ever, ``nan`` makes losses
infinite from that step on, ``launcher`` kills the process that started the rank. ``SECONDS``: least time of a step.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import torch
from torch import nn

from engine.commands.entry import train
from engine.config.run import RunConfig
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.task.spec import TaskSpec
from tests.engine.toy import ToyTask, no_inference, toy_model


class FaultyTask(ToyTask):
    """See the module."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(toy_model(nn.Dropout(0.1)), size=48)
        self._ranks = ranks
        self._fault, self._rank, self._step = (os.environ.get("FAULT") or "none -1 -1").split()

    def training_step(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        time.sleep(float(os.environ.get("SECONDS", "0")))
        results = super().training_step(model, batch)
        if self._ranks.rank == int(self._rank) and len(self.seen) >= int(self._step):
            self._go_wrong(results)
        return results

    def _go_wrong(self, results: dict[str, Any]) -> None:
        match self._fault:
            case "raise":
                raise ValueError("the seventh seal is broken")
            case "user":
                raise UserError("data: images/0815.jpg cannot be read")
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "launcher":
                os.kill(os.getppid(), signal.SIGKILL)
                time.sleep(60)
            case "sleep":
                time.sleep(3600)
            case "nan":
                results["loss"] = results["loss"] * float("inf")


SPEC = TaskSpec(
    "toy", lambda: RunConfig, lambda config, ranks: FaultyTask(ranks), no_inference, lambda config: ToyTask.metrics
)


if __name__ == "__main__":
    train(SPEC)
