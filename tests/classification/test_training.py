"""Whole runs: what they leave behind, and that ranks, accumulation and workers change nothing."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from classification import task as task_module
from classification.config import ClassificationConfig
from classification.inference import ClassificationInference
from classification.spec import SPEC
from classification.task import ClassificationTask
from engine.commands.arguments import EvaluateArguments
from engine.commands.build import build_trainer
from engine.commands.evaluate import run_evaluation
from engine.config.load import load_config
from engine.data.batch_plan import Draw
from engine.devices.profiling import TABLE, TRACE
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.run_folder.metrics import MEASURED, read_metrics
from engine.run_folder.paths import RunDir
from engine.task.experiment import open_experiment
from tests.classification.small import EVALUATE, TRAIN, folder_data, write_config, write_images
from tests.distributed import launch, run_ranks
from tools.chaos.compare import tree_difference


def succeed(world_size: int, command: list[str], cwd: Path, new_interpreter: bool = False) -> str:
    ended = launch(world_size, command, cwd=cwd, new_interpreter=new_interpreter)
    assert [end.returncode for end in ended] == [0] * world_size, ended[0].output
    return ended[0].output


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """A finished run of two epochs on two ranks, with its console output."""
    folder = tmp_path_factory.mktemp("run")
    config = write_config(folder, training={"steps": None, "epochs": 2, "global_batch_size": 256, "ema": {}})
    output = succeed(2, [*TRAIN, "--config", str(config), "experiment.name=two ranks"], folder)
    return folder / "experiments" / "experiment_0001", output


def test_a_run_leaves_the_folder_that_is_promised(finished):
    folder, output = finished
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    steps = {"checkpoints/step_00000005.pt", "checkpoints/step_00000010.pt"}
    checkpoints = {*steps, "checkpoints/last.pt", "checkpoints/best.pt"}
    plain = {"README.md", "config.yaml", "environment.json", "status.json", "metrics.jsonl"}
    plain |= {"results/train_samples.png", "results/curves.png"}
    logs = {"logs/rank_0.log", "logs/rank_1.log"}
    events = {name for name in files if name.startswith("two ranks/events.out.tfevents.")}
    assert files - events == plain | logs | checkpoints | {f"{name}.sha256" for name in checkpoints}
    assert len(events) == 3, "the card, numbers and images, the end"
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["step"], status["epoch"]) == ("finished", 10, 2.0)
    readme = (folder / "README.md").read_text()
    assert "two ranks" in readme and "**finished**" in readme
    assert all(f"| {name} |" in readme for name in ("top1", "images_per_second_per_device", "memory_gb"))
    for line in ("finished; best top1", "experiment_0001/README.md", "tensorboard --logdir experiments"):
        assert line in output
    environment = json.loads((folder / "environment.json").read_text())
    assert [device["rank"] for device in environment["devices"]] == [0, 1]


def test_records_go_to_both_files_with_increasing_steps(finished):
    folder, _ = finished
    board = EventAccumulator(str(RunDir(folder).tensorboard)).Reload()
    for split, steps in (("train", [2, 4, 5, 6, 8, 10]), ("val", [5, 10])):
        records = read_metrics(folder / "metrics.jsonl", split)
        assert [record["step"] for record in records] == steps
        assert [event.step for event in board.Scalars(f"{split}/loss")] == steps
        assert [event.value for event in board.Scalars(f"{split}/loss")] == pytest.approx([r["loss"] for r in records])
    for record in read_metrics(folder / "metrics.jsonl", "train"):
        assert {"lr", "grad_norm", "images_per_second_per_device", *MEASURED} <= set(record)
        assert record["images_per_second"] == pytest.approx(2 * record["images_per_second_per_device"])


def test_the_checkpoint_is_plain_and_complete(finished):
    folder, _ = finished
    saved = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
    assert saved["metadata"]["classes"] == [str(digit) for digit in range(10)]
    assert set(saved["model"]) == set(saved["ema"])
    assert not any(name.startswith(("module.", "_orig_mod.")) for name in saved["model"])
    assert saved["run"]["step"] == saved["run"]["updates"] == 10
    names = {name for group in saved["optimizer"]["groups"] for name in group["params"]}
    assert names == set(saved["optimizer"]["state"]) <= set(saved["model"])


def test_the_resolved_configuration_alone_reproduces_the_run(finished, tmp_path):
    folder, _ = finished
    again = ["--config", str(folder / "config.yaml"), f"experiment.root={tmp_path}"]
    only_watched = ["training.profile.steps=[2,4]", "training.shard=optimizer"]  # both change no bit
    succeed(2, [*TRAIN, *again, *only_watched], tmp_path)
    folders = (folder, tmp_path / "experiment_0001")
    losses = [[r["loss"] for r in read_metrics(path / "metrics.jsonl")] for path in folders]
    assert losses[0] == losses[1]
    saved = [torch.load(path / "checkpoints" / "last.pt", weights_only=True) for path in folders]
    assert all(tree_difference(saved[0][part], saved[1][part]) is None for part in ("model", "ema", "optimizer"))
    assert {TRACE, TABLE} < {path.name for path in (folders[1] / "results").iterdir()}


@pytest.mark.parametrize("world_size", [1, 3])
def test_evaluate_repeats_what_training_measured(finished, world_size):
    folder, _ = finished
    command = [*EVALUATE, "--experiment", str(folder), "--checkpoint", "last"]
    succeed(world_size, command, folder, new_interpreter=world_size == 1)
    measured = read_metrics(folder / "metrics.jsonl", "val")
    during = next(r for r in measured if r["step"] == 10 and "source" not in r)
    after = measured[-1]
    assert (after["source"], after["checkpoint"], after["epoch"]) == ("evaluate", "last.pt", 2.0)
    metrics = json.loads((folder / "results" / "val" / "metrics.json").read_text())
    assert [row["train_images"] for row in metrics.pop("size_bins")] == ["2-9", "10-99", "100-499", "500+"]
    assert metrics.pop("ece") == after["ece"]
    assert metrics == {name: during[name] for name in metrics} == {name: after[name] for name in metrics}
    results = {path.name for path in (folder / "results" / "val").iterdir()}
    assert {"report.md", "per_class.csv", "predictions.csv", "confusion_matrix.csv", "confusion_matrix.png"} <= results
    assert len((folder / "results/val/predictions.csv").read_text().splitlines()) == 361


def test_evaluate_takes_settings_that_count_and_keeps_what_others_gave(finished, caplog):
    folder, _ = finished
    run_evaluation(SPEC, EvaluateArguments(folder, "best", "val", []))
    changes = ["data.image_size=24", "data.workers=1", "evaluation.batch_size=64"]
    run_evaluation(SPEC, EvaluateArguments(folder, "best", "val", changes))
    assert "the earlier results in val, of best_step_" in caplog.text
    results = folder / "results"
    step = torch.load(folder / "checkpoints" / "best.pt", weights_only=True)["run"]["step"]
    assert (results / f"val_best_step_{step:08d}" / "metrics.json").is_file()
    made_from = json.loads((results / "val" / "made_from.json").read_text())
    assert (made_from["checkpoint"], made_from["changes"]) == ("best.pt", ["data.image_size=24"])
    assert "with data.image_size=24\n" in (results / "val" / "report.md").read_text()
    *_, before, last = read_metrics(folder / "metrics.jsonl", "val")
    assert last["changes"] == "data.image_size=24" and "changes" not in before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["optimizer.lr=1", "model.drop_path=0.5", "data.workers=1"],
            "command line: optimizer.lr, model.drop_path: cannot",
        ),
        (["training.epochs=9"], "training.epochs: cannot matter for a trained model; what can: data, "),
        (["optimzer.lr=1"], "command line: optimzer: unknown key; did you mean 'optimizer'?"),
    ],
)
def test_evaluate_refuses_settings_that_cannot_matter(finished, overrides, message):
    with pytest.raises(UserError) as caught:
        run_evaluation(SPEC, EvaluateArguments(finished[0], "best", "val", overrides))
    assert message in str(caught.value)


def test_dry_run_makes_a_step_and_writes_nothing(tmp_path):
    config = write_config(tmp_path)
    command = [*TRAIN, "--config", str(config), "--dry-run", "optimizer.lr=0.125"]
    output = succeed(1, command, tmp_path, new_interpreter=True)
    assert "lr: 0.125" in output and "one step made" in output
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


MIXED = {
    "experiment": {"seed": 3},
    "model": {"drop_path": 0.0},
    "augmentation": {"mixup": 0.8, "cutmix": 1.0, "random_erasing": {"probability": 0.5}, "color_jitter": {}},
    "training": {"steps": 20, "global_batch_size": 16, "clip_grad_norm": 5.0},
}


def some_steps(
    ranks: Ranks, config: str, overrides: list[str], stop: int = 20, begin: str = "", end: str = ""
) -> dict[str, torch.Tensor]:
    """Losses of the steps up to ``stop``, and what each sample was: step, index, position, sum of pixels, mixing.

    ``begin``: the file of the state to start from; ``end``: where rank 0 leaves the last one.
    """
    torch.use_deterministic_algorithms(False)
    loaded = load_config(ClassificationConfig, Path(config), overrides)
    trainer = build_trainer(SPEC, loaded, ranks)
    if begin:
        trainer.load_state_dict(torch.load(begin, weights_only=True))
    task, rows = trainer.task, []
    original = task.training_step

    def remember(model, batch):
        pixels = batch["image"].double().mul(torch.arange(batch["image"][0].numel()).view(3, 16, 16)).sum((1, 2, 3))
        step = torch.full_like(batch["index"], trainer.state.step)
        columns = [step, batch["index"], batch["position"], pixels, batch["pixel_weights"], batch["target_weights"]]
        rows.append(torch.stack([column.double() for column in columns] + list(batch["boxes"].double().T), dim=1))
        return original(model, batch)

    task.training_step = remember
    batches, losses = trainer.batches(), []
    while trainer.state.step < stop:
        trainer.state.window = type(trainer.state.window)()
        trainer.train_step(batches)
        trainer.settle()
        losses.append(trainer.state.window.means()["loss"])
    if end and ranks.is_main:
        torch.save(trainer.state_dict(), end)
    return {"losses": torch.tensor(losses), "samples": torch.cat(rows)}


def in_order(parts: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """The samples of all ranks, by step and position."""
    samples = torch.cat([part["samples"] for part in parts])
    return samples[sorted(range(len(samples)), key=lambda i: tuple(samples[i, [0, 2]].tolist()))]


def test_ranks_accumulation_and_workers_change_neither_samples_nor_losses(tmp_path):
    """2 ranks, 4 micro-batches or 2 workers: same samples, augmentation, mixing; losses to 1e-5 over 20 steps."""
    config = str(write_config(tmp_path, **MIXED))
    single = Ranks(Layout(), torch.device("cpu"))
    whole = some_steps(single, config, [])
    others = {
        "2 accumulated": [some_steps(single, config, ["training.accumulation=2"])],
        "4 accumulated": [some_steps(single, config, ["training.micro_batch_size=4"])],
        "2 workers": [some_steps(single, config, ["data.workers=2"])],
        "2 ranks": run_ranks(2, some_steps, config, []),
        "2 ranks, 2 accumulated": run_ranks(2, some_steps, config, ["training.accumulation=2"]),
    }
    assert len(whole["losses"].unique()) == 20
    for name, parts in others.items():
        assert torch.equal(in_order(parts), whole["samples"]), name
        for part in parts:
            torch.testing.assert_close(part["losses"], whole["losses"], rtol=1e-5, atol=0, msg=name)


def predictions_of(ranks: Ranks, config: str) -> dict[str, torch.Tensor]:
    loaded = load_config(ClassificationConfig, Path(config))
    torch.manual_seed(0)
    task = ClassificationTask(loaded, ranks)
    task.model.eval()
    with torch.inference_mode():
        found = task.predict(task.model, "val", ranks)
        metrics = task.evaluate(task.model, "val", ranks).metrics
    assert len(found.labels) == 101
    columns = {name: torch.from_numpy(value) for name, value in vars(found).items()}
    return {**columns, "metrics": torch.tensor(list(metrics.values()), dtype=torch.float64)}


@pytest.mark.parametrize("wanted", [False, True])
def test_images_come_in_the_layout_that_the_model_is_run_with(finished, tmp_path, wanted):
    ranks, layouts = Ranks(Layout(), torch.device("cpu")), []
    config = load_config(ClassificationConfig, write_config(tmp_path, training={"channels_last": wanted}))
    task = ClassificationTask(config, ranks)
    opened = open_experiment(finished[0], "best", ClassificationConfig)
    trained = ClassificationInference(replace(opened, config=config), ranks)

    def model(images):
        layouts.append(images.is_contiguous(memory_format=torch.channels_last))
        return task.model(images)

    batch = task.workers.collate([task.train_data[Draw(index, 0, index)] for index in range(4)])
    task.training_step(model, batch)
    trained.classifier.logits(model, batch["image"])
    assert layouts == [wanted, wanted]


def test_figures_are_worked_out_in_a_phase_that_may_take_long(tmp_path, monkeypatch):
    ranks, phases, measure = Ranks(Layout(), torch.device("cpu")), [], task_module.measure
    task = ClassificationTask(load_config(ClassificationConfig, write_config(tmp_path)), ranks)

    def measured(*given):
        phases.append(ranks.heartbeat.place.phase)
        return measure(*given)

    monkeypatch.setattr(task_module, "measure", measured)
    with torch.inference_mode():
        task.evaluate(task.model.eval(), "val", ranks)
    assert phases == ["measure"]


def test_101_images_are_evaluated_once_each_on_any_number_of_ranks(tmp_path):
    write_images(tmp_path / "train", {"a": 4, "b": 4, "c": 4})
    write_images(tmp_path / "val", {"a": 50, "b": 31, "c": 20})
    sections = {"data": folder_data(tmp_path), "evaluation": {"batch_size": 8}, "training": {"global_batch_size": 4}}
    config = str(write_config(tmp_path, **sections))
    one = predictions_of(Ranks(Layout(), torch.device("cpu")), config)
    assert one["labels"].tolist() == [0] * 50 + [1] * 31 + [2] * 20
    for world_size in (2, 3):
        for part in run_ranks(world_size, predictions_of, config):
            assert part.keys() == one.keys()
            assert all(torch.equal(part[name], one[name]) for name in one), world_size


def test_resuming_a_stopped_run_ends_in_the_same_bits(tmp_path):
    """Stopped by SIGTERM in the middle of an epoch, with workers, dropout, mixing and a moving average."""
    sections = {
        "model": {"drop_path": 0.2},
        "data": {"source": "digits", "image_size": 16, "workers": 1},
        "augmentation": {"mixup": 0.8},
        "training": {"steps": 60, "ema": {}, "accumulation": 2},
        "evaluation": {"every_steps": 40},
    }
    from tests.distributed import Group

    config = write_config(tmp_path, **sections)
    succeed(1, [*TRAIN, "--config", str(config)], tmp_path)
    metrics = tmp_path / "experiments" / "experiment_0002" / "metrics.jsonl"
    with Group(1, [*TRAIN, "--config", str(config)], cwd=tmp_path) as group:
        while not (metrics.exists() and read_metrics(metrics)):
            assert group.processes[0].poll() is None, group.output(0)
            time.sleep(0.01)
        group.processes[0].terminate()
        (ended,) = group.wait(60)
    assert ended.returncode == 75, ended.output
    status = json.loads(metrics.with_name("status.json").read_text())
    assert status["state"] == "interrupted" and 0 < status["step"] < 60
    succeed(1, [*TRAIN, "--resume", str(metrics.parent)], tmp_path)
    left, right = (tmp_path / "experiments" / f"experiment_000{i}" for i in (1, 2))
    one, two = (torch.load(path / "checkpoints" / "last.pt", weights_only=True) for path in (left, right))
    for part in ("model", "ema"):
        assert all(torch.equal(tensor, two[part][name]) for name, tensor in one[part].items())
    timeless = [
        [{k: v for k, v in r.items() if k not in MEASURED} for r in records]
        for records in (read_metrics(path / "metrics.jsonl") for path in (left, right))
    ]
    assert timeless[0] == timeless[1]
    assert yaml.safe_load((left / "config.yaml").read_text()) == yaml.safe_load((right / "config.yaml").read_text())


def test_a_run_goes_on_with_other_numbers_of_ranks(tmp_path):
    """2 -> 1 -> 2 ranks in mid-epoch: the same samples at each step, losses to 1e-5."""
    config = str(write_config(tmp_path, **{**MIXED, "training": {**MIXED["training"], "ema": {"decay": 0.9}}}))
    whole = run_ranks(2, some_steps, config, [])
    first, second = str(tmp_path / "first.pt"), str(tmp_path / "second.pt")
    single = Ranks(Layout(), torch.device("cpu"))
    parts = [
        run_ranks(2, some_steps, config, [], 7, "", first),
        [some_steps(single, config, [], 13, first, second)],
        run_ranks(2, some_steps, config, [], 20, second),
    ]
    assert [len(part[0]["losses"]) for part in parts] == [7, 6, 7]
    assert torch.equal(torch.cat([in_order(part) for part in parts]), in_order(whole))
    losses = torch.cat([part[0]["losses"] for part in parts])
    torch.testing.assert_close(losses, whole[0]["losses"], rtol=1e-5, atol=0)
