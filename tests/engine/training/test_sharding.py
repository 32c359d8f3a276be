"""Optimizer state divided over ranks: the same bits, the same checkpoints, a part of the memory."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.optim import list_optimizers
from torch import nn

from engine.config.load import load_config
from engine.config.optimization import COMMON_NAMES, UNDIVIDED, OptimizerConfig
from engine.config.run import RunConfig
from engine.config.training import FinetuneConfig
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.training.optimizer import advances_each_by_itself, build_optimizer
from engine.training.sharding import ShardedState, group_bounds
from engine.training.state import RunState
from engine.training.trainer import Trainer
from tests.distributed import run_ranks
from tests.engine.toy import SINGLE, Memory, ToyTask, toy_config, toy_model, toy_trainer
from tests.sections import section
from tools.chaos.compare import tree_difference

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "momentum": {"momentum": 0.9},
    "lion": {},
    "nadam": {},
    "muon": {},
}


class Staged(nn.Sequential):
    """A model of stages, so that it can be unfrozen from the head down."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Linear(6, 8), nn.Linear(8, 40), nn.Tanh(), nn.Linear(40, 2))

    def get_classifier(self) -> nn.Module:
        return self[3]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^0", "blocks": r"^(1)"}


def trainer_of(ranks: Ranks, shard: str, optimizer: dict[str, Any], unfreeze: bool = False) -> Trainer:
    sections: dict[str, Any] = {
        "training": {
            "global_batch_size": 12,
            "epochs": 4,
            "shard": shard,
            "ema": {"decay": 0.5},
            "clip_grad_norm": 1.0,
        },
        "optimizer": {"lr": 0.01, **optimizer},
    }
    if unfreeze:
        sections["finetune"] = {"unfreeze": {0: "head", 1: "stage_1", 2: "all"}}
    return toy_trainer(ToyTask(Staged(), 24), toy_config(**sections), ranks)


def steps(trainer: Trainer, count: int) -> None:
    batches = trainer.batches()
    for _ in range(count):
        trainer.train_step(batches)


def reread(content: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint as a file gives it back: nothing in it that a file may not hold."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def state_bytes(trainer: Trainer) -> int:
    tensors = [
        v for entry in trainer.learner.optimizer.state.values() for v in entry.values() if isinstance(v, torch.Tensor)
    ]
    return sum(tensor.nbytes for tensor in tensors)


def compared(ranks: Ranks, optimizers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """How checkpoints of whole and divided states differ, and what a resumed run of the other kind makes of them."""
    found = {}
    for name, options in optimizers.items():
        for unfreeze in (False, True):
            trainers = {
                kind: trainer_of(ranks, kind, {"name": name, **options}, unfreeze) for kind in ("none", "optimizer")
            }
            saved: dict[str, Any] = {}
            for kind, trainer in trainers.items():
                steps(trainer, 3)
                content = reread(trainer.state_dict())  # whole on rank 0 alone
                saved[kind] = ranks.from_main(partial(dict, content))
            ends = {}
            for kind, trainer in trainers.items():
                steps(trainer, 4)
                ends[kind] = reread(trainer.state_dict())
            for kind, content in saved.items():
                other = "none" if kind == "optimizer" else "optimizer"
                resumed = trainer_of(ranks, other, {"name": name, **options}, unfreeze)
                resumed.load_state_dict(copy.deepcopy(content))  # torch keeps some of it
                steps(resumed, 4)
                ends[f"{kind} -> {other}"] = reread(resumed.state_dict())
            for content in (*saved.values(), *ends.values()):
                del content["config"]
            pairs = [(saved["none"], saved["optimizer"]), *((ends["none"], content) for content in ends.values())]
            differences = [tree_difference(*pair) for pair in pairs] if ranks.is_main else []
            weights = [torch.cat([p.detach().flatten() for p in t.task.model.parameters()]) for t in trainers.values()]
            found[f"{name} {unfreeze}"] = {
                "differences": [text for text in differences if text],
                "bytes": [state_bytes(trainer) for trainer in trainers.values()],
                "weights": weights,
            }
    return found


@pytest.mark.parametrize("world_size", [2, 3])
def test_a_divided_state_gives_the_same_bits_and_the_same_checkpoints(world_size: int) -> None:
    ranks = run_ranks(world_size, compared, OPTIMIZERS)
    for case, first in ranks[0].items():
        assert first["differences"] == [], (case, first["differences"])
        for other in ranks:
            whole, divided = other[case]["weights"]
            assert torch.equal(whole, divided) and torch.equal(divided, first["weights"][1]), case
        parts = [rank[case]["bytes"][1] for rank in ranks]
        whole_bytes = first["bytes"][0]
        assert sum(parts) == whole_bytes > 0, case  # every byte has one owner
        assert max(parts) < 0.75 * whole_bytes, case


def goes_on(ranks: Ranks, content: dict[str, Any] | None, shard: str) -> dict[str, Any]:
    """A checkpoint two steps after another."""
    trainer = trainer_of(ranks, shard, {"name": "adamw"})
    if content is not None:
        trainer.load_state_dict(copy.deepcopy(content))  # all ranks are given the same memory
    steps(trainer, 2)
    return reread(trainer.state_dict())


def test_the_number_of_ranks_may_change_from_start_to_start() -> None:
    ends = []
    for shard in ("none", "optimizer"):
        content = None
        for world_size in (3, 2):
            content = run_ranks(world_size, goes_on, content, shard)[0]
        ends.append(goes_on(SINGLE, content, shard))
        del ends[-1]["config"]
    assert ends[0]["run"]["step"] == 6
    assert set(ends[0]["optimizer"]["state"]) == set(ends[0]["model"])
    assert tree_difference(*ends) is None


class Clock(Memory):
    """Asks for a checkpoint as rank 0 would after some minutes: here once, after the second step."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self._asks, self._done = ranks.is_main, 0

    def stepped(self, state: RunState, epoch: float) -> None:
        self._done = state.step

    def minutes_due(self, every: float | None) -> bool:
        return self._asks and every is not None and self._done == 2


def saved_by_the_clock(ranks: Ranks) -> list[int]:
    """Steps of the checkpoints of a run in which one is due by the clock, which only rank 0 looks at."""
    config = toy_config(
        training={"global_batch_size": 12, "epochs": 4, "shard": "optimizer"}, checkpoint={"every_minutes": 1.0}
    )
    recorder = Clock(ranks)
    assert toy_trainer(ToyTask(Staged(), 24), config.model_copy(), ranks).fit(recorder)
    return [entry["step"] for entry in recorder.saved]


def test_all_ranks_save_together_when_rank_0s_clock_says_so() -> None:
    by_evaluations = [2, 4, 6, 8]
    first, second = run_ranks(2, saved_by_the_clock)
    assert second == [] and set(first) > set(by_evaluations)


def small_groups(ranks: Ranks) -> list[Any]:
    """Weights after some steps in groups of at most two, and how many parameters' states this rank has."""
    found = []
    for most in (1, 2):
        torch.manual_seed(0)
        model = nn.Sequential(Staged(), nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        ShardedState(optimizer, ranks, timedelta(seconds=60), most)
        for step in range(3):
            for number, parameter in enumerate(model.parameters()):
                parameter.grad = torch.full_like(parameter, 1.0 + step * number)
            optimizer.step()
        assert not model.get_parameter("1.weight").is_contiguous()
        found += [[p.detach() for p in model.parameters()], len(optimizer.state)]
    return found


def test_groups_of_ranks_each_have_a_whole_state() -> None:
    assert group_bounds(3, 2) == [0, 1, 3]
    assert group_bounds(8, 8) == [0, 8] and group_bounds(12, 8) == [0, 6, 12] and group_bounds(1024, 8)[1:3] == [8, 16]
    ranks = run_ranks(3, small_groups)
    for whole, everything, divided, _ in ranks:
        assert everything == 8
        for ours, theirs in zip(whole, divided, strict=True):
            assert torch.equal(ours, theirs)
    parts = [part for *_, part in ranks]
    assert parts[0] == 8 and parts[1] + parts[2] == 8 and min(parts) > 0


def refused(tmp_path: Path, name: str) -> str:
    """What is said of a file that wants to divide this optimizer's state; empty if nothing is."""
    path = tmp_path / "run.yaml"
    path.write_text(f"optimizer:\n  name: {name}\ntraining:\n  shard: optimizer\n")
    try:
        load_config(RunConfig, path)
    except UserError as error:
        return str(error)
    return ""


def test_optimizers_that_look_at_all_parameters_at_once_are_refused_with_their_line(tmp_path: Path) -> None:
    for name in ("lamb", "lambc"):
        assert re.search(
            rf"run\.yaml:4: training\.shard: '{name}' \(optimizer\.name\) cannot be divided, .* adamw$",
            refused(tmp_path, name),
        )
    assert not refused(tmp_path, "lion")
    assert not refused(tmp_path, "fusedadamw"), "what no CPU can try is tried where it runs"


def divides(name: str) -> bool:
    """Whether an optimizer does, as far as a CPU can tell: true of what runs on GPUs alone."""
    config, finetune = section(OptimizerConfig, name=name), FinetuneConfig()
    try:
        return advances_each_by_itself(lambda model: build_optimizer(model, config, finetune), torch.device("cpu"))
    except UserError:
        return True


@pytest.mark.parametrize("names", [COMMON_NAMES, pytest.param(list_optimizers(), marks=pytest.mark.full)])
def test_what_is_known_of_optimizers_is_so(names: Iterable[str]) -> None:
    assert {name for name in names if not divides(name)} == UNDIVIDED & set(names)


def test_a_device_that_shows_it_later_refuses_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.sharding.advances_each_by_itself", lambda build, device: False)
    with pytest.raises(UserError, match=r"training\.shard: 'adamw' \(optimizer\.name\) cannot be divided"):
        toy_trainer(ToyTask(toy_model()), toy_config(training={"shard": "optimizer"}))


def test_a_single_rank_trains_and_saves_as_ever() -> None:
    recorder = Memory()
    trainer = toy_trainer(ToyTask(toy_model()), toy_config(training={"shard": "optimizer"}))
    assert trainer.fit(recorder) and recorder.saved
