"""A lack of memory while a run is built: told with the settings that ask for it."""

from __future__ import annotations

import pytest
import torch

from engine.commands.build import told_of_memory
from engine.config.run import RunConfig
from engine.errors import UserError

ASKED = "training.global_batch_size=128, training.micro_batch_size=None, evaluation.batch_size=64"


@pytest.mark.parametrize("ask", [lambda: torch.empty(2**45), lambda: torch.empty(2**62, 4), lambda: bytearray(2**60)])
def test_a_lack_of_memory_is_told_with_what_asks_for_it(ask) -> None:
    text = f"not enough memory for {ASKED} and a model of this size: "
    with pytest.raises(UserError, match=text), told_of_memory(RunConfig()):
        ask()


@pytest.mark.parametrize("ask", [lambda: torch.zeros(2).view(3), lambda: torch.zeros(1, dtype=torch.int8).fill_(300)])
def test_other_errors_are_left_alone(ask) -> None:
    with pytest.raises(RuntimeError, match=r"shape|overflow"), told_of_memory(RunConfig()):
        ask()
