"""The training loop on a toy task: gradients, skipped steps, schedules, moving average, stopping, resuming."""

from __future__ import annotations

import copy
import io
import signal
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from engine.data.loaders import EvaluationStopped
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.training.step_numbers import NonFiniteError
from tests.engine.toy import BLACK, Memory, ToyTask, toy_config, toy_model, toy_trainer


def own_ranks() -> Ranks:
    """A single process that no other test has asked to stop."""
    return Ranks(Layout(), torch.device("cpu"))


def weights(task: ToyTask) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in task.model.parameters()])


def train(task: ToyTask, **sections: dict) -> Memory:
    recorder = Memory()
    assert toy_trainer(task, toy_config(**sections)).fit(recorder)
    return recorder


def test_plain_training_equals_a_loop_written_by_hand():
    task, reference = ToyTask(toy_model()), toy_model()
    recorder = train(task, training={"epochs": 3}, optimizer={"lr": 0.01, "weight_decay": 0.1})
    matrices = [p for p in reference.parameters() if p.ndim > 1]
    vectors = [p for p in reference.parameters() if p.ndim == 1]
    groups = [{"params": vectors, "weight_decay": 0.0}, {"params": matrices, "weight_decay": 0.1}]
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    losses = []
    for indices in task.seen:
        loss = (reference(task.train_data.x[indices]) - task.train_data.y[indices]).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert len(task.seen) == 9
    assert [record["loss"] for record in recorder.train] == pytest.approx(losses, rel=1e-6)
    torch.testing.assert_close(weights(task), torch.cat([p.detach().flatten() for p in reference.parameters()]))


@pytest.mark.parametrize("accumulation", [2, 4])
@pytest.mark.parametrize("drop_last", [True, False])
def test_accumulation_changes_neither_losses_nor_weights(accumulation, drop_last):
    size = 24 if drop_last else 21  # 21 leaves a short step of 5
    whole, parts = (ToyTask(toy_model(), size, drop_last=drop_last) for _ in range(2))
    one = train(whole, training={"epochs": 3})
    many = train(parts, training={"epochs": 3, "accumulation": accumulation})
    assert [r["loss"] for r in many.train] == pytest.approx([r["loss"] for r in one.train], rel=1e-5)
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-5, atol=1e-6)


def test_every_sample_once_an_epoch_without_drop_last():
    task = ToyTask(toy_model(), 21, drop_last=False)
    train(task, training={"epochs": 1})
    assert sorted(i for batch in task.seen for i in batch) == list(range(21))


def test_clipping_bounds_the_gradient_and_records_the_norm_before():
    task = ToyTask(toy_model())
    before = weights(task).clone()
    recorder = train(
        task,
        training={"epochs": None, "steps": 1, "clip_grad_norm": 1e-3},
        optimizer={"name": "momentum", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0},
    )
    assert recorder.train[0]["grad_norm"] > 0.1
    assert (weights(task) - before).norm().item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    "precision, optimizer", [("fp32", "adamw"), ("fp16", "adamw"), ("fp32", "sgd"), ("fp32", "lamb")]
)
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(precision, optimizer):
    task = ToyTask(toy_model(nn.BatchNorm1d(8)), bad=(3,))  # sample 3 is in the first step
    sections = {
        "optimizer": {"name": optimizer},
        "training": {"epochs": 1, "precision": precision, "ema": {"decay": 0.5}},
        "schedule": {"name": "milestones", "milestones": [0.67], "gamma": 0.1},
    }
    trainer = toy_trainer(task, toy_config(**sections))
    batches = trainer.batches()
    rates = []
    for _ in range(3):
        before = copy.deepcopy(trainer.state_dict())
        trainer.train_step(batches)
        rates.append(trainer.learner.optimizer.param_groups[0]["lr"])
        if 3 in task.seen[-1]:
            after = trainer.state_dict()
            for part in ("model", "ema"):
                for name, tensor in before[part].items():
                    if not name.endswith("num_batches_tracked"):
                        torch.testing.assert_close(after[part][name], tensor, rtol=0, atol=0)
            for name, entry in after["optimizer"]["state"].items():
                for key, value in entry.items():
                    old = before["optimizer"]["state"].get(name, {}).get(key, torch.zeros_like(value))
                    torch.testing.assert_close(value, old, rtol=0, atol=0)
    trainer.settle()
    assert (trainer.state.step, trainer.state.updates, trainer.state.skipped) == (3, 2, 1)
    assert rates[-1] == pytest.approx(0.01)  # two updates have not reached the milestone of the third
    assert weights(task).isfinite().all()
    if precision == "fp16":
        assert trainer.learner.scaler.get_scale() == 2.0**15  # halved once


def test_too_many_bad_steps_in_a_row_end_the_run_with_a_cure():
    task = ToyTask(toy_model(), bad=tuple(range(24)))
    with pytest.raises(NonFiniteError, match=r"3 steps in a row, up to step 3, .*optimizer\.lr"):
        train(task, training={"max_nonfinite_steps": 3})


@pytest.mark.parametrize("stops", [{}, {"early_stopping": {"patience": 1}}], ids=["at the end", "early"])
def test_a_run_of_which_every_step_was_skipped_is_no_finished_one(stops: dict):
    recorder, task = Memory(), ToyTask(toy_model(), bad=tuple(range(24)))
    trainer = toy_trainer(task, toy_config(evaluation=stops))
    with pytest.raises(NonFiniteError, match=r"nothing was trained: all [36] steps .*optimizer\.lr"):
        trainer.fit(recorder)
    assert {saved["step"] for saved in recorder.saved} == {3}, "what it began with is not kept as its result"


def test_records_are_means_since_the_record_before():
    single = train(ToyTask(toy_model()), training={"epochs": 2})
    grouped = train(ToyTask(toy_model()), training={"epochs": 2}, logging={"every_steps": 2})
    assert [r["step"] for r in grouped.train] == [2, 3, 4, 6]  # and at the end of each epoch
    losses = [r["loss"] for r in single.train]
    assert grouped.train[0]["loss"] == pytest.approx((losses[0] + losses[1]) / 2)
    assert grouped.train[1]["loss"] == pytest.approx(losses[2])


def test_moving_average_follows_each_update_and_is_what_is_evaluated():
    task = ToyTask(toy_model())
    trainer = toy_trainer(task, toy_config(training={"epochs": 1, "ema": {"decay": 0.5, "warmup": False}}))
    batches, average = trainer.batches(), None
    for _ in range(3):
        trainer.train_step(batches)
        average = weights(task) if average is None else 0.5 * average + 0.5 * weights(task)
    ema = torch.cat([p.detach().flatten() for p in trainer.learner.ema.module.parameters()])
    torch.testing.assert_close(ema, average)
    with torch.no_grad():
        expected = task.evaluate(trainer.learner.ema.module, "val", None).metrics["loss"]
        assert trainer.evaluate("val").metrics["loss"] == pytest.approx(expected)


def test_a_second_average_is_kept_evaluated_and_resumed():
    training = {"epochs": 1, "ema": {"decay": 0.9, "second_decay": 0.5, "warmup": False}}
    task = ToyTask(toy_model())
    trainer, recorder = toy_trainer(task, toy_config(training=training)), Memory()
    assert trainer.fit(recorder)
    saved, learner = trainer.state_dict(), trainer.learner
    alone = toy_trainer(
        ToyTask(toy_model()), toy_config(training={"epochs": 1, "ema": {"decay": 0.5, "warmup": False}})
    )
    assert alone.fit(Memory())
    _assert_same_bits(saved["second_ema"], alone.state_dict()["ema"])
    with torch.no_grad():
        for name, average in (("loss", learner.ema), ("loss_second_ema", learner.second_ema)):
            expected = task.evaluate(average.module, "val", None).metrics["loss"]
            assert recorder.val[-1][name] == pytest.approx(expected)
    resumed = toy_trainer(ToyTask(toy_model()), toy_config(training=training))
    resumed.load_state_dict(saved)
    _assert_same_bits(resumed.state_dict(), saved)
    with pytest.raises(UserError, match=r"missing entries .*second_ema"):
        resumed.load_state_dict({name: entry for name, entry in saved.items() if name != "second_ema"})


def test_plateau_lowers_the_rate_and_early_stopping_ends_the_run():
    task = ToyTask(toy_model())
    task.scores = [0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]
    recorder = train(
        task,
        training={"epochs": 20},
        schedule={"name": "plateau", "plateau": {"factor": 0.5, "patience": 1}},
        evaluation={"metric": "score", "early_stopping": {"patience": 4}},
    )
    assert [r["step"] for r in recorder.val] == [3, 6, 9, 12, 15, 18]  # the best at 6, then four without progress
    assert [s["best"] for s in recorder.saved] == [False, True, False, True, *[False] * 8]  # before each and after
    rates = {r["step"]: r["lr"] for r in recorder.train}
    assert rates[12] == pytest.approx(0.01) and rates[15] == pytest.approx(0.005)


def test_images_are_kept_at_the_beginning_and_shown_with_each_best_evaluation():
    task = ToyTask(toy_model())
    task.scores = [0.5, 0.4, 0.6]
    recorder = train(task, training={"epochs": 3}, evaluation={"metric": "score"})
    assert recorder.shown == [(0, "train_samples"), (3, "val/curve"), (9, "val/curve")]


def test_files_of_every_evaluation_are_written(tmp_path):
    task = ToyTask(toy_model())
    task.scores = [0.5, 0.4, 0.6]
    evaluate = task.evaluate

    def writing(model, split, ranks):
        return replace(evaluate(model, split, ranks), write=lambda folder, step: {f"{folder.name}_{step}": BLACK})

    task.evaluate = writing
    assert train(task, training={"epochs": 3}, evaluation={"metric": "score"}).written == [
        (3, "results_3"), (6, "results_6"), (9, "results_9")
    ]  # fmt: skip


def test_the_findings_of_an_evaluation_are_kept_with_the_weights():
    task = ToyTask(toy_model())
    task.scores = [0.25]
    trainer = toy_trainer(task, toy_config(training={"epochs": 1}))
    assert trainer.fit(Memory())
    saved = trainer.state_dict()
    assert saved["run"]["findings"] == {"threshold": 0.25}
    again = toy_trainer(ToyTask(toy_model()), toy_config(training={"epochs": 2}))
    again.load_state_dict(saved)
    assert again.state.findings == {"threshold": 0.25}


def test_an_unknown_metric_is_named_with_those_that_there_are():
    with pytest.raises(UserError, match="'top2' is not measured; there are loss, score"):
        train(ToyTask(toy_model()), evaluation={"metric": "top2"})


def test_a_stop_request_ends_the_run_after_the_step_and_a_save():
    task = ToyTask(toy_model())
    config = toy_config(training={"epochs": 4})
    trainer = toy_trainer(task, config, own_ranks())
    recorder = Memory()
    original = task.training_step

    def stop_in_fifth(model, batch):
        if len(task.seen) == 4:
            trainer.ranks.stop.signal = signal.SIGTERM
        return original(model, batch)

    task.training_step = stop_in_fifth
    assert not trainer.fit(recorder)
    assert trainer.state.step == 5
    assert recorder.saved[-1]["step"] == 5


def test_a_stop_in_the_step_before_an_evaluation_leaves_that_to_the_next_start():
    task = ToyTask(toy_model())
    config = toy_config(training={"epochs": 2})
    trainer, recorder = toy_trainer(task, config, own_ranks()), Memory()
    original = task.training_step

    def stop_in_third(model, batch):
        if len(task.seen) == 2:
            trainer.ranks.stop.signal = signal.SIGTERM
        return original(model, batch)

    task.training_step = stop_in_third
    assert not trainer.fit(recorder)
    assert (trainer.state.step, recorder.val) == (3, [])
    resumed, later = toy_trainer(ToyTask(toy_model()), config, own_ranks()), Memory()
    resumed.load_state_dict(copy.deepcopy(trainer.state_dict()))
    assert resumed.fit(later)
    assert [record["step"] for record in later.val] == [3, 6]
    whole = train(ToyTask(toy_model()), training={"epochs": 2})
    assert [record["loss"] for record in later.val] == [record["loss"] for record in whole.val]


def test_a_stop_during_an_evaluation_saves_and_evaluates_again_after_the_next_start():
    task = ToyTask(toy_model())
    config = toy_config(training={"epochs": 2})
    trainer, recorder = toy_trainer(task, config, own_ranks()), Memory()

    def stopped(model, split, ranks):
        raise EvaluationStopped

    task.evaluate = stopped
    assert not trainer.fit(recorder)
    assert recorder.saved == [{"step": 3, "best": False}]
    resumed, later = toy_trainer(ToyTask(toy_model()), config, own_ranks()), Memory()
    resumed.load_state_dict(copy.deepcopy(trainer.state_dict()))
    assert resumed.fit(later)
    assert [record["step"] for record in later.val] == [3, 6]
    assert {"step": 3, "best": True} in later.saved


def test_an_evaluation_that_fails_does_not_cost_the_epoch_before_it():
    task, contents = ToyTask(toy_model()), []

    class Keeping(Memory):
        def save(self, state, content, best):
            super().save(state, content, best)
            contents.append(copy.deepcopy(content))

    def broken(model, split, ranks):
        raise UserError("val/0815.jpg: cannot be read as an image")

    task.evaluate, recorder = broken, Keeping()
    with pytest.raises(UserError, match="0815"):
        toy_trainer(task, toy_config()).fit(recorder)
    assert recorder.saved == [{"step": 3, "best": False}]
    resumed, later = toy_trainer(ToyTask(toy_model()), toy_config()), Memory()
    resumed.load_state_dict(contents[0])
    assert resumed.fit(later)
    whole = train(ToyTask(toy_model()))
    assert [record["step"] for record in later.val] == [3, 6] and later.val == whole.val


def test_resuming_anywhere_gives_the_same_bits():
    sections = {
        "training": {"epochs": 4, "accumulation": 2, "ema": {"decay": 0.9}, "clip_grad_norm": 1.0},
        "schedule": {"name": "cosine", "warmup_steps": 3},
        "logging": {"every_steps": 2},
    }

    def model():
        return toy_model(nn.BatchNorm1d(8), nn.Dropout(0.3))

    whole = toy_trainer(ToyTask(model()), toy_config(**sections))
    records = Memory()
    whole.fit(records)
    stopped = toy_trainer(ToyTask(model()), toy_config(**sections))
    batches = stopped.batches()
    for _ in range(5):
        stopped.train_step(batches)
        stopped.settle()
        if stopped.state.step % 2 == 0 or stopped.state.step == 3:
            stopped.state.window = type(stopped.state.window)()  # its record is written
    buffer = io.BytesIO()
    torch.save(stopped.state_dict(), buffer)
    buffer.seek(0)
    resumed = toy_trainer(ToyTask(model()), toy_config(**sections))
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    later = Memory()
    resumed.fit(later)
    _assert_same_bits(whole.state_dict(), resumed.state_dict())
    tail = records.train[-len(later.train) :]
    assert [(r["step"], r["loss"], r["grad_norm"]) for r in later.train] == [
        (r["step"], r["loss"], r["grad_norm"]) for r in tail
    ]


def _assert_same_bits(left: object, right: object, where: str = "") -> None:
    assert type(left) is type(right), where
    if isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            _assert_same_bits(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    else:
        assert left == right, where


@pytest.mark.parametrize("key", ["model", "ema", "optimizer", "scaler", "run", "format", "config"])
def test_a_checkpoint_without_one_of_its_entries_is_refused_by_name(key):
    config = toy_config(training={"ema": {"decay": 0.9}})
    saved = toy_trainer(ToyTask(toy_model()), config).state_dict()
    del saved[key]
    with pytest.raises(UserError, match=key):
        toy_trainer(ToyTask(toy_model()), config).load_state_dict(saved)


def test_a_checkpoint_of_another_model_is_refused():
    saved = toy_trainer(ToyTask(toy_model()), toy_config()).state_dict()
    with pytest.raises(UserError, match="does not fit"):
        toy_trainer(ToyTask(toy_model(nn.BatchNorm1d(8))), toy_config()).load_state_dict(saved)


class CountReads(TorchDispatchMode):
    """Notes what makes the host wait for a device: reading a scalar, and sizes that depend on values."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "item")

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self._events = events

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in self.WAITS):
            self._events.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "momentum"])
def test_the_host_reads_the_numbers_of_a_step_when_it_has_queued_the_passes_of_the_next(
    optimizer, accumulation, precision, monkeypatch
):
    """On a CPU tolist() copies without an operator of its own, so it is noted where the loop calls it."""
    training = {"accumulation": accumulation, "clip_grad_norm": 1.0, "ema": {"decay": 0.9}, "precision": precision}
    task = ToyTask(toy_model(nn.BatchNorm1d(8)), 64)
    trainer = toy_trainer(task, toy_config(training=training, optimizer={"name": optimizer}))
    events: list[str] = []
    original = {"tolist": torch.Tensor.tolist, "step": trainer.learner.optimizer.step}

    def training_step(model, batch):
        events.append("passes")
        return {"loss": (model(batch["x"]) - batch["y"]).square().mean()}

    task.training_step = training_step
    monkeypatch.setattr(torch.Tensor, "tolist", lambda values: events.append("read") or original["tolist"](values))
    trainer.learner.optimizer.step = lambda: events.append("step") or original["step"]()
    batches = trainer.batches()
    trainer.train_step(batches)
    events.clear()
    with CountReads(events):
        for _ in range(3):
            trainer.train_step(batches)
    assert events == [*["passes"] * accumulation, "read", "step"] * 3


def test_what_is_read_is_of_the_step_before_and_counts_for_it():
    trainer = toy_trainer(ToyTask(toy_model(), bad=(3,)), toy_config())
    batches = trainer.batches()
    trainer.train_step(batches)
    assert (trainer.state.step, trainer.state.updates, trainer.state.window.steps) == (1, 0, 0)
    trainer.train_step(batches)
    trainer.settle()
    trainer.settle()  # once is enough
    assert (trainer.state.step, trainer.state.skipped, trainer.state.window.steps) == (2, 1, 1)


def test_a_stop_request_is_noticed_within_two_steps_between_records():
    trainer = toy_trainer(ToyTask(toy_model()), toy_config(logging={"every_steps": 100}), own_ranks())
    recorder, original = Memory(), trainer.task.training_step

    def stop_in_first(model, batch):
        trainer.ranks.stop.signal = signal.SIGTERM
        return original(model, batch)

    trainer.task.training_step = stop_in_first
    assert not trainer.fit(recorder)
    assert recorder.saved == [{"step": 2, "best": False}]
