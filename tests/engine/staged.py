"""A toy model in stages, under timm's protocol, and runs that train more and more of it."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor, nn

from engine.distributed.ranks import Ranks
from engine.training.trainer import Trainer
from tests.engine.toy import SINGLE, ToyTask, toy_config, toy_trainer

STAGES = ("stem", "stage_1", "stage_2", "head")
PHASES = {"0": "head", "1": "stage_2", "1.67": "all"}
"""For three steps an epoch: the stages begin with steps 0, 3 and 5."""
BEGINS = {"head": 0, "stage_2": 3, "stem": 5, "stage_1": 5}
STEPS = 8


class Staged(nn.Module):
    """6 numbers -> 2, through a stem and two stages with batch norm and dropout; always with the same weights."""

    def __init__(self, batch_norm: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        norm = nn.BatchNorm1d if batch_norm else nn.LayerNorm
        self.stem = nn.Linear(6, 8)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8, bias=False), norm(8), nn.Tanh(), nn.Dropout(0.2)) for _ in range(2)
        )
        self.head = nn.Linear(8, 2)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)"}

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).tanh()
        for stage in self.stages:
            x = stage(x)
        return self.head(x)


def stage_of(name: str) -> str:
    """The stage of a parameter or buffer of :class:`Staged`."""
    first, *rest = name.split(".")
    return f"stage_{int(rest[0]) + 1}" if first == "stages" else first


def staged_trainer(ranks: Ranks = SINGLE, batch_norm: bool = True, **sections: dict[str, Any]) -> Trainer:
    """Eight steps in the phases of :data:`PHASES`; ``sections`` win."""
    base: dict[str, dict[str, Any]] = {
        "training": {"epochs": None, "steps": STEPS, "ema": {"decay": 0.9}, "clip_grad_norm": 1.0},
        "optimizer": {"lr": 0.01, "weight_decay": 0.5},
        "finetune": {"unfreeze": PHASES},
    }
    merged = {name: {**base.get(name, {}), **sections.get(name, {})} for name in {**base, **sections}}
    return toy_trainer(ToyTask(Staged(batch_norm)), toy_config(**merged), ranks)


def stored(trainer: Trainer) -> bytes:
    """The trainer's state as a checkpoint's file would hold it."""
    buffer = io.BytesIO()
    torch.save(trainer.state_dict(), buffer)
    return buffer.getvalue()


def read(content: bytes) -> dict[str, Any]:
    return torch.load(io.BytesIO(content), weights_only=True)


def finish(trainer: Trainer) -> list[bytes]:
    """Makes the steps that are left; the state before the first of them and after each."""
    batches, found = trainer.batches(), [stored(trainer)]
    while trainer.state.step < trainer.total_steps:
        trainer.train_step(batches)
        found.append(stored(trainer))
    return found


def differing(one: Any, two: Any, where: str = "state") -> list[str]:
    """Where two states differ in any bit, type or key."""
    if type(one) is not type(two):
        return [where]
    if isinstance(one, dict):
        if one.keys() != two.keys():
            return [where]
        return [place for key in one for place in differing(one[key], two[key], f"{where}.{key}")]
    if isinstance(one, list):
        if len(one) != len(two):
            return [where]
        return [
            place for i, pair in enumerate(zip(one, two, strict=True)) for place in differing(*pair, f"{where}.{i}")
        ]
    same = torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two
    return [] if same else [where]
