"""The benchmarks' own arithmetic, and one real run of the smallest size. How fast anything is, is no test's matter."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import swin
from classification.augmentation.sections import AugmentationConfig
from classification.augmentation.transforms import TrainTransform
from engine.images.lazy_image import load_image
from engine.run_folder.experiments import read_runs
from tests.distributed import ROOT, clean_environment, launch
from tools.bench import checkpoint as bench_checkpoint
from tools.bench import coco as bench_coco
from tools.bench import compare as bench_compare
from tools.bench import detection as bench_detection
from tools.bench import detection_step as bench_detection_step
from tools.bench import diffusion as bench_diffusion
from tools.bench import export as bench_export
from tools.bench import resume as bench_resume
from tools.bench import step as bench_step
from tools.bench import swin as bench_swin
from tools.bench.__main__ import main
from tools.bench.data import loader as bench_loader
from tools.bench.data import start as bench_start
from tools.bench.timing import Table, interleaved
from tools.export.formats import FORMATS


def test_rounds_are_interleaved_and_the_first_does_not_count() -> None:
    calls: list[str] = []

    def measure(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    work = {("ours", "fast"): lambda: measure("a"), ("theirs", "fast"): lambda: measure("b")}
    samples = interleaved(work, rounds=2)
    assert calls == ["a", "b"] * 3
    assert samples == {"ours": {"fast": [3.0, 5.0]}, "theirs": {"fast": [4.0, 6.0]}}


def test_a_table_shows_medians_gaps_ratios_and_the_machine() -> None:
    samples = {"ours": {"one": [3.0, 1.0, 2.0], "two": [4.0, 4.0, 9.0]}, "theirs": {"one": [5.0, 6.0, 7.0]}}
    table = Table("name", "A title", "seconds", samples, {"theirs / ours": {"one": 3.0}})
    lines = table.text().splitlines()
    assert lines[0] == "A title: seconds, median of 3 interleaved rounds"
    assert lines[2].split() == ["ours", "2.0", "4.0"]
    assert lines[3].split() == ["theirs", "6.0", "-"]
    assert lines[5].split() == ["theirs", "/", "ours", "3.00", "-"]
    assert f"torch {torch.__version__}" in lines[-1]
    stored = json.loads(json.dumps(table.as_dict()))
    assert stored["samples"] == samples
    assert stored["medians"]["ours"] == {"one": 2.0, "two": 4.0}
    assert stored["machine"]["threads"] == torch.get_num_threads()


@pytest.mark.parametrize("row", bench_swin.WITHOUT)
def test_the_plain_ways_compute_the_same(row: str) -> None:
    torch.manual_seed(0)
    model = swin.swin_tiny(embed_dim=24, num_heads=(1, 2, 4, 8), num_classes=5).eval()
    x = torch.randn(2, 3, 120, 128)

    def logits_and_gradient() -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        logits = model(x)
        logits.square().sum().backward()
        gradient = model.layers[1].get_parameter("blocks.1.attn.relative_position_bias_table").grad
        assert gradient is not None
        return logits, gradient

    expected = logits_and_gradient()
    with bench_swin.WITHOUT[row][1]():
        found = logits_and_gradient()
    for plain, ours in zip(found, expected, strict=True):
        assert torch.allclose(plain, ours, atol=1e-5 * ours.abs().max().item())


def test_the_swin_benchmark_runs_and_writes_every_sample(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    (ended,) = launch(1, [sys.executable, "-m", "tools.bench", "swin", "--quick", "--json", str(path)], timeout=300)
    assert ended.returncode == 0, ended.output
    (table,) = json.loads(path.read_text())
    rows = {"timm", "torchvision", "swin"}
    assert set(table["samples"]) == rows | {f"{row}, memory kept" for row in rows} | set(bench_swin.WITHOUT)
    for row in rows:
        assert set(table["samples"][row]) == set(bench_swin.MODES)
        assert all(len(values) == 1 and values[0] > 0 for values in table["samples"][row].values())
    medians = table["medians"]
    faster = min(medians["timm"]["train fp32"], medians["torchvision"]["train fp32"])
    ratio = table["ratios"]["peers as they come / swin"]["train fp32"]
    assert ratio == pytest.approx(faster / medians["swin, memory kept"]["train fp32"])
    assert "peers as they come / swin" in ended.output
    assert table["machine"]["cpu"] in ended.output


def test_the_process_that_measures_ends_with_the_command() -> None:
    arguments = [sys.executable, "-m", "tools.bench", "swin"]
    with subprocess.Popen(arguments, cwd=ROOT, env=clean_environment(), stdout=subprocess.PIPE) as command:
        children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
        while not (measuring := [pid for pid in children.read_text().split() if "libtorch" in maps(pid)]):
            assert command.poll() is None
            time.sleep(0.05)
        command.terminate()
        try:
            command.communicate(timeout=600)  # the output is at its end only when both have ended
        except subprocess.TimeoutExpired:
            os.kill(int(measuring[0]), signal.SIGKILL)
            raise


def maps(pid: str) -> str:
    """What a process has loaded; nothing if it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/maps").read_text()
    return ""


def test_a_missing_folder_is_noticed_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["swin", "--json", str(tmp_path / "none" / "bench.json")]) == 2
    assert "no folder" in capsys.readouterr().err


def test_unknown_names_are_refused() -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["swim"])
    assert stopped.value.code == 2


def test_the_loop_is_measured_beside_one_written_by_hand() -> None:
    table = bench_step.run(quick=True)
    (row,) = table.samples
    assert row == "digits Swin, batch 32, fp32"
    assert all(rate > 0 for values in table.samples[row].values() for rate in values)
    speeds = table.medians()[row]
    assert table.ratios == {f"{row}: trainer / by hand": {"trainer": speeds["trainer"] / speeds["by hand"]}}


def test_saving_in_the_background_is_measured_beside_saving_in_the_loop() -> None:
    table = bench_checkpoint.run(quick=True)
    assert table.title.startswith("Saving Swin-T with AdamW, ")
    assert set(table.samples["synchronous"]) == {"loop blocked", "until on disk"}
    assert set(table.samples["background"]) == {"loop blocked", "until on disk", "training step", "longest pause"}
    assert set(table.samples["nothing saved"]) == {"training step", "longest pause"}
    medians = table.medians()
    assert all(value > 0 for cells in medians.values() for value in cells.values())
    blocked = medians["background"]["loop blocked"] / medians["synchronous"]["loop blocked"]
    assert table.ratios["background / synchronous"]["loop blocked"] == blocked
    assert set(table.ratios["background / nothing saved"]) == {"training step"}


def test_a_resumed_run_is_measured_beside_one_never_interrupted() -> None:
    table = bench_resume.run(quick=True)
    assert set(table.samples["resumed"]) == {"step", "way into the epoch"}
    medians = table.medians()
    assert all(value > 0 for cells in medians.values() for value in cells.values())
    ratio = medians["resumed"]["step"] / medians["uninterrupted"]["step"]
    assert table.ratios == {"resumed / uninterrupted": {"step": ratio}}


def test_what_follows_a_detector_is_measured_beside_torchvisions() -> None:
    table = bench_detection.run(quick=True)
    rows = ["matching and loss", *(f"post-processing, {kind} scores" for kind in ("dense", "sparse"))]
    (suppression,) = set(table.samples) - set(rows)
    assert set(table.samples[suppression]) == set(bench_detection.WAYS)
    for row in rows:
        cells = table.medians()[row]
        assert set(cells) == {"torchvision", "ours"}
        assert table.ratios[f"{row}: torchvision / ours"] == {"ours": cells["torchvision"] / cells["ours"]}


def test_the_coco_evaluation_is_measured_beside_pycocotools_and_finds_the_same() -> None:
    table = bench_coco.run(quick=True)
    assert set(table.samples["20 images, 500 boxes"]) == {"pycocotools", "ours"}
    medians = table.medians()["20 images, 500 boxes"]
    ratio = medians["pycocotools"] / medians["ours"]
    assert table.ratios == {"20 images, 500 boxes: pycocotools / ours": {"ours": ratio}}


def test_exports_are_measured_beside_pytorch_or_refused_with_a_reason() -> None:
    table = bench_export.run(quick=True)
    rows = {f"a small Swin: {name}" for name, form in FORMATS.items() if not form.packages}
    assert set(table.samples) == set(table.notes) == rows
    for row, cells in table.medians().items():
        assert table.ratios[f"{row}: PyTorch / export"] == {"export": cells["PyTorch"] / cells["export"]}
        assert 0 < cells["MB"] < 1 and table.notes[row].startswith("at most ")
        assert f"{row}: {table.notes[row]}" in table.text().splitlines()


def test_experiments_are_read_beside_tensorboards_reader_with_the_same_values(tmp_path: Path) -> None:
    table = bench_compare.run(quick=True)
    assert {"EventAccumulator", "ours"} <= set(table.samples["metrics of all runs"])
    bench_compare.write_run(tmp_path, 1, 20)
    (run,) = read_runs([tmp_path])
    (theirs,) = bench_compare.read_events(tmp_path).values()
    assert theirs["val/top1"] == pytest.approx(run.last["top1"]) and theirs["train/loss"] == pytest.approx(
        run.trained["loss"]
    )


def test_a_diffusion_is_measured_beside_diffusers_and_beside_a_bare_loop() -> None:
    table = bench_diffusion.run(quick=True)
    step, sampling = (row for row in table.samples)
    speeds = table.medians()
    assert step.startswith("training step, 32 x 32, batch 2") and sampling.startswith("sampling, 20 steps of DDIM")
    assert set(speeds[step]) == {bench_diffusion.OURS, bench_diffusion.PEER, bench_diffusion.BY_HAND}
    assert set(speeds[sampling]) == {bench_diffusion.OURS, bench_diffusion.PEER}
    assert all(rate > 0 for cells in speeds.values() for rate in cells.values())
    ours, bare = (speeds[step][column] for column in (bench_diffusion.OURS, bench_diffusion.BY_HAND))
    assert table.ratios[f"{step}: ours / other"][bench_diffusion.BY_HAND] == ours / bare


def test_a_detectors_steps_are_measured_beside_torchvisions() -> None:
    table = bench_detection_step.run(quick=True)
    ((row, cells),) = table.medians().items()
    peers = ["torchvision", "torchvision, channels last"]
    assert row == "tf_efficientnet_lite0 at 64, batch 2, fp32" and set(cells) == {*peers, "ours"}
    assert all(rate > 0 for rate in cells.values())
    assert table.ratios == {f"{row}: ours / peer": {peer: cells["ours"] / cells[peer] for peer in peers}}


def test_torchvisions_detector_is_ours() -> None:
    """The same maps, heads and priors: on an image with one object, where both divide alike, the same losses."""
    config = bench_detection_step.configured(replace(bench_detection_step.QUICK[0], batch=2))
    trainer = bench_step.build(bench_detection_step.SPEC, config)
    data = trainer.batches().next().data
    data = {name: tensor[:1] for name, tensor in data.items()}
    data["mask"] = torch.arange(data["mask"].shape[1]).unsqueeze(0) < 1
    data["boxes"][0, 0] = torch.tensor([0.2, 0.3, 0.7, 0.9])
    peer = bench_detection_step.peer(config, trainer)
    expected = peer(*bench_detection_step.as_lists(data))
    found = trainer.task.training_step(trainer.task.model.train(), data)
    torch.testing.assert_close(found["loss_classes"], expected["classification"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found["loss_boxes"], expected["bbox_regression"], rtol=1e-3, atol=1e-4)


def test_all_ways_of_suppression_keep_the_same() -> None:
    given = bench_detection.candidates(bench_detection.QUICK, torch.Generator().manual_seed(2), torch.device("cpu"))
    one, *others = (bench_detection.kept(suppress, given) for suppress in bench_detection.WAYS.values())
    assert 0 < one.sum() < one.numel() and all(torch.equal(one, other) for other in others)


def test_both_sides_of_the_detection_benchmark_find_the_same() -> None:
    size, rng = bench_detection.QUICK, torch.Generator().manual_seed(1)
    priors = bench_detection.some_priors(size, rng)
    logits, codes = bench_detection.output(size, rng, background=3.0)
    peer = bench_detection.torchvisions(size.classes + 1)
    theirs = bench_detection.their_detections(peer, logits, codes, priors)
    ours = bench_detection.our_detections(logits, codes, priors)
    for expected, (boxes, scores, labels) in zip(theirs, ours, strict=True):
        torch.testing.assert_close(scores, expected["scores"])
        assert torch.equal(labels + 1, expected["labels"])
        torch.testing.assert_close(boxes * bench_detection.SIDE, expected["boxes"], rtol=0, atol=1e-3)
    boxes, labels, mask = bench_detection.objects(size, rng)
    mask[:, 1:] = False  # one object, since both sides settle it differently who of two has a prior that both want
    predicted = (logits[:1].detach().requires_grad_(), codes[:1].detach().requires_grad_())
    given = (*predicted, priors, boxes[:1], labels[:1], mask[:1])
    expected_loss, found = bench_detection.their_loss(peer, *given), bench_detection.our_loss(*given)
    torch.testing.assert_close(found["loss_classes"], expected_loss["classification"])
    torch.testing.assert_close(found["loss_boxes"], expected_loss["bbox_regression"])
    torch.testing.assert_close(found["logits"], expected_loss["logits"])
    torch.testing.assert_close(found["codes"], expected_loss["codes"])


def test_the_loader_benchmark_has_both_sides() -> None:
    table = bench_loader.run(quick=True)
    for row in ("crop and flip", "RandAugment", "two workers: CPU", "two workers: images/s"):
        assert {"ours", "timm"} <= set(table.samples[row])
    assert {"ours", "torchvision"} <= set(table.samples["SSD, 640 x 480 to 320"])
    assert {"ours", "torchvision"} <= set(table.samples["opening takes 20 ms: images/s"])
    assert any("on originals / ours on a short side of 320" in title for title in table.ratios)


def test_the_start_is_measured_beside_torchvisions_data_sets() -> None:
    table = bench_start.run(quick=True)
    cells = table.medians()
    for name in ("folders", "table", "COCO"):
        assert cells[f"{name}: folders listed"]["first start"] > cells[f"{name}: folders listed"]["with the index"] == 0
        assert all(value > 0 for value in cells[f"{name}: CPU seconds"].values())
    assert "torchvision" in cells["folders: MB at most"] and "torchvision" in cells["COCO: MB at most"]
    assert {"with the index", "torchvision"} == set(cells["folders, workers: PSS grows by %"])


def test_both_sides_of_the_loader_benchmark_make_the_same_input(tmp_path: Path) -> None:
    bench_loader.write_photographs(tmp_path, 2)
    file = tmp_path / "large" / "a" / "0.jpg"
    ours = TrainTransform(bench_loader.ready(bench_loader.SIDE), AugmentationConfig())(load_image(file), 1)
    theirs = bench_loader.torchvisions()(bench_loader.opened(file))
    timms = torch.as_tensor(bench_loader.timms()(bench_loader.opened(file)))
    assert ours.shape == theirs.shape == timms.shape
    assert ours.dtype == timms.dtype == torch.uint8 and theirs.dtype == torch.float32
    assert 60_000 < file.stat().st_size < 200_000
