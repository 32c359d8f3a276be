"""What is frozen keeps every bit, what is unfrozen trains, and no phase is disturbed by a restart."""

from __future__ import annotations

import logging
import math
import weakref
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from engine.config.training import FinetuneConfig, TrainingConfig
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.model.freezing import Freezing, Phase, plan_phases
from swin import swin_tiny
from tests.distributed import run_ranks
from tests.engine.staged import BEGINS, STAGES, STEPS, Staged, differing, finish, read, stage_of, staged_trainer, stored
from tests.engine.toy import SINGLE, Memory, prepare_network

State = dict[str, Any]


def at_each_step(**sections: Any) -> list[State]:
    return [read(content) for content in finish(staged_trainer(**sections))]


# -- the plan --------------------------------------------------------------------------------------------------------


def test_epochs_become_steps_and_all_is_what_is_left() -> None:
    plan = plan_phases({2.5: ["all"], 0: ["head"], 1: ["stage_2", "head"]}, STAGES, 10)
    assert plan == [Phase(0, ("head",)), Phase(10, ("stage_2",)), Phase(25, ("stem", "stage_1"))]


def test_a_phase_without_anything_new_is_none() -> None:
    with pytest.raises(UserError, match="epoch 1: head: trained from an earlier epoch on; remove it"):
        plan_phases({0: ["all"], 1: ["head"]}, STAGES, 10)


def test_a_stage_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(UserError) as caught:
        plan_phases({0: ["head"], 4: ["layer4"]}, STAGES, 10)
    assert str(caught.value) == (
        "finetune.unfreeze: epoch 4: the model has no stage 'layer4'; there are stem, stage_1, stage_2, head, and "
        "'all' for all of them"
    )


@pytest.mark.parametrize(
    ("unfreeze", "message"),
    [
        ({"5": "all"}, "must say what is trained from epoch 0 on"),
        ({"0": []}, "must say what is trained from epoch 0 on"),
        ({"-1": "all", "0": "head"}, "greater than or equal to 0"),
        ({"zero": "all"}, "valid number"),
        ({"0": "head", "nan": "all"}, "finite number"),
        ("head", "valid dictionary"),
    ],
)
def test_what_reads_like_no_schedule_is_refused(unfreeze: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FinetuneConfig.model_validate({"unfreeze": unfreeze})


def test_the_schedule_survives_being_written_down() -> None:
    config = FinetuneConfig.model_validate({"unfreeze": {"0": "head", "0.3": ["stage_1"], "10": "all"}})
    dumped = config.model_dump(mode="json")
    assert dumped["unfreeze"] == {"0": ["head"], "0.3": ["stage_1"], "10": ["all"]}
    assert FinetuneConfig.model_validate(dumped) == config


RANDOM = "finetune.unfreeze: what is frozen has random weights, since finetune.weights is null"


def test_phases_behind_the_end_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        staged_trainer(finetune={"unfreeze": {"0": "head", "2": "stage_2", "3": "all"}})
    assert caplog.messages == [
        RANDOM,
        "finetune.unfreeze: stem, stage_1 would begin with step 9, but the run has 8: not trained",
    ]


def test_a_head_that_is_never_trained_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        staged_trainer(finetune={"unfreeze": {"0": "stage_1", "1": "stage_2"}})
    assert caplog.messages == [
        RANDOM,
        "finetune.unfreeze: neither 'head' nor 'all' begins at any epoch: the classifier stays as it is at first",
    ]


# -- what is frozen, what is trained ---------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "momentum", "lamb"])
def test_frozen_stages_keep_every_bit_and_have_no_optimizer_state(optimizer: str) -> None:
    """With a large weight decay, momentum, clipping and a moving average."""
    states = at_each_step(optimizer={"name": optimizer})
    for step, (before, after) in enumerate(pairwise(states)):
        trained = {stage for stage in STAGES if BEGINS[stage] <= step}
        for part in ("model", "ema"):
            for name, tensor in after[part].items():
                same = torch.equal(tensor, before[part][name])
                assert same == (stage_of(name) not in trained), (step, part, name)
        expected = {n for n in before["model"] if stage_of(n) in trained and n.endswith(("weight", "bias"))}
        assert set(after["optimizer"]["state"]) == expected
        assert {n for group in after["optimizer"]["groups"] for n in group["params"]} == expected
    assert len(states) == STEPS + 1


def test_frozen_parameters_have_no_gradient_and_no_part_in_its_norm() -> None:
    trainer = staged_trainer(training={"clip_grad_norm": None})
    batches, gradients, norms = trainer.batches(), [], []
    original = trainer.learner.optimizer.step

    def remember(*args: Any) -> Any:
        gradients.append({n: p.grad.clone() for n, p in trainer.task.model.named_parameters() if p.grad is not None})
        return original(*args)

    trainer.learner.optimizer.step = remember  # type: ignore[method-assign]
    for step in range(STEPS):
        trainer.train_step(batches)
        trainer.settle()
        norms.append(trainer.state.window.grad_norm)
        assert {stage_of(name) for name in gradients[step]} == {s for s in STAGES if BEGINS[s] <= step}
        expected = math.sqrt(sum(g.double().square().sum().item() for g in gradients[step].values()))
        assert norms[-1] - (norms[-2] if step else 0.0) == pytest.approx(expected, rel=1e-5)


def test_group_counters_begin_with_their_stage() -> None:
    """Lamb corrects its young averages by a count that it keeps for a group."""
    last = at_each_step(optimizer={"name": "lamb"})[-1]
    counted = {stage_of(name): int(group["step"]) for group in last["optimizer"]["groups"] for name in group["params"]}
    assert counted == {stage: STEPS - begin for stage, begin in BEGINS.items()}


@pytest.mark.parametrize("policy", ["frozen_stages", "always", "never"])
def test_batch_norm_moves_as_configured(policy: str) -> None:
    states = at_each_step(finetune={"freeze_batchnorm": policy})
    for step, (before, after) in enumerate(pairwise(states)):
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            for stage, key in (("stage_1", f"stages.0.1.{name}"), ("stage_2", f"stages.1.1.{name}")):
                moves = policy == "never" or (policy == "frozen_stages" and BEGINS[stage] <= step)
                assert torch.equal(before["model"][key], after["model"][key]) != moves, (step, key)
    weight = "stages.0.1.weight"
    assert not torch.equal(states[0]["model"][weight], states[-1]["model"][weight])  # weights train in any case


def test_batch_norm_may_be_held_where_everything_trains() -> None:
    trainer = staged_trainer(finetune={"unfreeze": None, "freeze_batchnorm": "always"})
    trainer.train_step(trainer.batches())
    assert trainer.task.model.get_buffer("stages.0.1.num_batches_tracked") == 0
    assert all(parameter.requires_grad for parameter in trainer.task.model.parameters())


def test_a_head_with_batch_norm_of_its_own_is_never_held() -> None:
    model = Staged()
    model.head = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))  # type: ignore[assignment]
    freezing = Freezing(model, FinetuneConfig(unfreeze={0: ["head"]}, freeze_batchnorm="always"), 3)
    freezing.train_mode()
    modes = {name: module.training for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    assert modes == {"stages.0.1": False, "stages.1.1": False, "head.1": True}


def test_layers_are_visited_again_only_after_an_evaluation_or_for_another_phase() -> None:
    model = Staged()
    freezing = Freezing(model, FinetuneConfig(unfreeze={0: ["head"], 1: ["all"]}), 3)
    norm = model.get_submodule("stages.0.1")
    freezing.train_mode()
    assert not norm.training
    norm.train()
    freezing.train_mode()
    assert norm.training, "nothing has happened since"
    model.eval()
    freezing.train_mode()
    assert model.training and not norm.training
    assert freezing.advance(3)
    freezing.train_mode()
    assert norm.training


def test_dropout_of_frozen_stages_stays_on() -> None:
    trainer = staged_trainer()
    trainer.train_step(trainer.batches())
    assert all(module.training for module in trainer.task.model.modules() if isinstance(module, nn.Dropout))


def test_parameters_that_the_model_itself_has_frozen_stay_so() -> None:
    model = Staged()
    model.stem.bias.requires_grad_(False)
    freezing = Freezing(model, FinetuneConfig(unfreeze={0: ["head"], 1: ["all"]}), 3)
    assert freezing.advance(3) and not freezing.advance(99)
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["stem.bias"]


def test_what_begins_has_to_have_weights() -> None:
    model = Staged()
    for parameter in model.head.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(UserError, match=r"what begins at epoch 0 \(head\) has no weights"):
        Freezing(model, FinetuneConfig(unfreeze={0: ["head"]}), 3)


# -- rates and decays ------------------------------------------------------------------------------------------------

RATES = {
    "finetune": {"backbone_lr_scale": 0.1, "backbone_weight_decay": 0.02, "layer_decay": 0.5},
    "schedule": {"name": "cosine", "warmup_steps": 3},
}


def test_every_stage_has_its_configured_rate_and_decay_at_each_step() -> None:
    """Layer decay, the backbone's scale and the schedule multiply; biases and norms are not decayed."""
    finetune = {"unfreeze": {"0": "head", "1": "stage_2", "1.67": "all"}, **RATES["finetune"]}
    trainer = staged_trainer(finetune=finetune, schedule=RATES["schedule"])
    names = {id(p): name for name, p in trainer.task.model.named_parameters()}
    scales = {"head": 1.0, "stage_2": 0.1 * 0.5, "stage_1": 0.1 * 0.25, "stem": 0.1 * 0.125}
    batches, bases = trainer.batches(), []
    for step in range(STEPS):
        trainer.settle()
        bases.append(trainer.rate())
        trainer.train_step(batches)
        found = {names[id(p)]: group for group in trainer.learner.optimizer.param_groups for p in group["params"]}
        assert {stage_of(name) for name in found} == {s for s in STAGES if BEGINS[s] <= step}
        for name, group in found.items():
            assert group["lr"] == pytest.approx(bases[-1] * scales[stage_of(name)], rel=1e-12), (step, name)
            decay = 0.5 if stage_of(name) == "head" else 0.02
            is_vector = trainer.task.model.get_parameter(name).ndim == 1
            assert group["weight_decay"] == (0.0 if is_vector else decay), name
    assert len(set(bases)) == STEPS


# -- over ranks, restarts, and with the rest of the engine -----------------------------------------------------------


def whole_and_resumed(ranks: Ranks, sections: dict[str, Any]) -> dict[str, Any]:
    """A run over all phases, and runs continued from each of its steps: how many keys of their last states differ."""
    whole = finish(staged_trainer(ranks, **sections))
    found = {}
    for step, content in enumerate(whole):
        resumed = staged_trainer(ranks, **sections)
        resumed.load_state_dict(read(content))
        found[step] = differing(read(whole[-1]), read(finish(resumed)[-1]))
    last = read(whole[-1])
    return {"differing": found, "model": last["model"], "first": read(whole[0])["model"]}


@pytest.mark.parametrize("world_size", [2, 3])
def test_a_resume_in_any_phase_repeats_every_bit_on_several_ranks(world_size: int) -> None:
    sections = {"training": {"accumulation": 1, "global_batch_size": 6 * world_size}, **RATES}
    sections["finetune"] = {"unfreeze": {"0": "head", "1.5": "stage_2", "2.5": "all"}, **RATES["finetune"]}
    results = run_ranks(world_size, whole_and_resumed, sections)
    for result in results:
        assert result["differing"] == {step: [] for step in range(STEPS + 1)}
        assert all(torch.equal(tensor, results[0]["model"][name]) for name, tensor in result["model"].items())
        changed = [name for name, tensor in result["model"].items() if not torch.equal(tensor, result["first"][name])]
        assert changed == list(result["model"])


@pytest.mark.parametrize("optimizer", ["adamw", "momentum", "sgd", "lamb", "adan", "adafactor", "lion", "muon"])
def test_a_resume_in_any_phase_repeats_every_bit(optimizer: str) -> None:
    sections = {"training": {"accumulation": 2}, "optimizer": {"name": optimizer}, **RATES}
    sections["finetune"] = {"unfreeze": {"0": "head", "1": "stage_2", "1.67": "all"}, **RATES["finetune"]}
    assert whole_and_resumed(SINGLE, sections)["differing"] == {step: [] for step in range(STEPS + 1)}


def frozen_statistics(ranks: Ranks) -> list[bool]:
    """Whether each buffer of frozen batch norm kept its bits, with values that a mean over three ranks would round."""
    trainer = staged_trainer(ranks, training={"global_batch_size": 6}, finetune={"unfreeze": {"0": "head"}})
    buffers = dict(trainer.task.model.named_buffers())
    for buffer in buffers.values():
        buffer.add_(torch.full_like(buffer, 0.1) if buffer.is_floating_point() else 0)
    before = {name: buffer.clone() for name, buffer in buffers.items()}
    finish(trainer)
    return [torch.equal(buffer, before[name]) for name, buffer in buffers.items()]


def test_statistics_of_frozen_batch_norm_keep_their_bits_on_three_ranks() -> None:
    assert run_ranks(3, frozen_statistics) == [[True] * 6] * 3


def final_weights(ranks: Ranks) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    trainer = staged_trainer(ranks, batch_norm=False)
    for module in trainer.task.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    finish(trainer)
    return dict(trainer.task.model.state_dict())


def test_two_ranks_train_what_one_does() -> None:
    one, *two = final_weights(SINGLE), *run_ranks(2, final_weights)
    for weights in two:
        for name, tensor in weights.items():
            torch.testing.assert_close(tensor, one[name], rtol=1e-4, atol=1e-5)


def wrappers_left(ranks: Ranks) -> int:
    """How many of a run's DDP wrappers still live at its end."""
    trainer = staged_trainer(ranks)
    batches, seen = trainer.batches(), []
    while trainer.state.step < STEPS:
        trainer.train_step(batches)
        if not seen or seen[-1]() is not trainer.learner.network:
            seen.append(weakref.ref(trainer.learner.network))
    assert len(seen) == 3
    return sum(reference() is not None for reference in seen)


def test_a_new_phase_has_a_new_wrapper_and_lets_the_old_one_go() -> None:
    assert run_ranks(2, wrappers_left) == [1, 1]


def gradients_around_a_frozen_stage(ranks: Ranks, checkpointing: bool) -> dict[str, torch.Tensor]:
    """Of the same images on each rank; with what lies before and behind the frozen stage in training."""
    torch.manual_seed(0)
    model = swin_tiny(num_classes=5, embed_dim=8, depths=(2, 2), num_heads=(1, 2), window_size=2, drop_path=0.0)
    freezing = Freezing(model, FinetuneConfig(unfreeze={0: ["stem", "head"], 1: ["stage_2"]}), 1)
    freezing.advance(1)
    freezing.train_mode()
    training = TrainingConfig(activation_checkpointing=checkpointing)
    network = prepare_network(model, training, ranks)
    network(torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)).square().sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_checkpointed_activations_give_the_same_gradients_around_a_frozen_stage() -> None:
    plain = gradients_around_a_frozen_stage(SINGLE, False)
    assert {name.partition(".blocks")[0] for name in plain if name.startswith("layers")} == {"layers.1"}
    assert "patch_embed.proj.weight" in plain and "head.weight" in plain
    others = [gradients_around_a_frozen_stage(SINGLE, True), *run_ranks(2, gradients_around_a_frozen_stage, True)]
    for other in others:
        assert other.keys() == plain.keys()
        for name, gradient in plain.items():
            torch.testing.assert_close(other[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_room_for_checkpoints_counts_what_is_trained_later() -> None:
    later = staged_trainer()
    size = later.learner.checkpoint_bytes()
    finish(later)
    assert size >= len(stored(later))
    assert size == staged_trainer(finetune={"unfreeze": None}).learner.checkpoint_bytes()


def test_early_stopping_waits_until_everything_is_trained() -> None:
    trainer = staged_trainer(
        training={"steps": 30},
        finetune={"unfreeze": {"0": "head", "4": "all"}},
        evaluation={"metric": "score", "early_stopping": {"patience": 2}},
    )
    recorder = Memory()
    trainer.fit(recorder)
    # Each evaluation gives a score of 0: the first one after everything has begun is the best, two more end the run.
    assert [record["step"] for record in recorder.val] == [3, 6, 9, 12, 15, 18, 21]


def test_a_step_that_compiles_anew_may_take_as_long_as_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.model.wrap.compile_for_training", lambda model, mode: model)
    ranks = Ranks(Layout(), torch.device("cpu"))
    trainer, slow = staged_trainer(ranks, training={"compile": True}), []
    forward = trainer.task.training_step
    monkeypatch.setattr(
        trainer.task, "training_step", lambda *given: slow.append(ranks.heartbeat.slow) or forward(*given)
    )
    finish(trainer)
    assert [number for number in range(STEPS) if slow[number]] == sorted({0, *BEGINS.values()})


@pytest.mark.full
def test_a_compiled_model_follows_the_phases() -> None:
    """Weights of a compiled run are close to those of a plain one, and a resume in each phase repeats its bits."""
    sections = {"training": {"compile": True}, "finetune": {"unfreeze": {"0": "head", "1": "stage_2", "1.67": "all"}}}
    whole = finish(staged_trainer(batch_norm=False, **sections))
    for step in (2, 3, 4, 5, 6):
        resumed = staged_trainer(batch_norm=False, **sections)
        resumed.load_state_dict(read(whole[step]))
        assert differing(read(finish(resumed)[-1]), read(whole[-1])) == [], step
