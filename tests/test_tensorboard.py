"""TensorBoard as its users meet it: the real server over the experiments' root, asked as its pages ask."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from classification.spec import SPEC
from engine.commands.arguments import TrainArguments
from engine.commands.train import run_training
from engine.process.signals import StopRequest
from engine.run_folder.metrics import read_metrics
from tests.browser import browser
from tests.classification.small import write_config
from tests.distributed import clean_environment

STATUSES = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
PLAIN, REQUEUED, SWEPT = "experiment_0001", "experiment_0002/requeued twice", "experiment_0003/lr=0.01"
RUNS = [PLAIN, REQUEUED, SWEPT]
TABS = ("timeseries", "scalars", "custom_scalars", "images", "text", "pr_curves", "hparams")
VISIBLE = """(() => { const found = []; const walk = (node) => {
  if (node.nodeType === 3) { if (node.parentElement?.offsetParent) found.push(node.textContent); return; }
  if (["STYLE", "SCRIPT", "TEMPLATE"].includes(node.nodeName)) return;
  if (node.shadowRoot) walk(node.shadowRoot);
  node.childNodes.forEach(walk); };
  walk(document.body); return found.join(" "); })()"""
"""The text of a page that is not hidden, within its web components too."""


class StopAfter(StopRequest):
    """A signal that comes when so many steps have asked for it."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    def __bool__(self) -> bool:
        self._left -= 1
        if self._left < 0 and self.signal is None:
            self.signal = signal.SIGUSR1
        return self.signal is not None


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiments of three runs: one as it comes, one requeued twice, one of a sweep."""
    folder = tmp_path_factory.mktemp("board")
    config = write_config(folder, evaluation={"every_steps": 2, "batch_size": 90}, logging={"every_steps": 1})

    def train(*overrides: str, resume: str | None = None, steps: int = 99) -> int:
        arguments = TrainArguments(config if resume is None else None, resume, False, overrides)
        return run_training(SPEC, arguments, StopAfter(steps))

    experiments = folder / "experiments"
    assert train() == 0
    requeued = str(experiments / "experiment_0002")
    assert train("experiment.name=requeued twice", steps=2) == 75
    assert train(resume=requeued, steps=2) == 75
    assert train("optimizer.lr=0.002", resume=requeued) == 0
    assert train("experiment.name=lr=0.01", "experiment.tags=[sweep, optimizer.lr=0.01]", "optimizer.lr=0.01") == 0
    return experiments


@contextmanager
def server(logdir: Path, *options: str) -> Iterator[str]:
    """Runs TensorBoard over a folder; yields its address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=clean_environment())
    try:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r"http://\S+?:(\d+)/", line):
                break
        else:
            raise AssertionError(said)
        yield f"http://127.0.0.1:{found[1]}"
    finally:
        process.terminate()
        process.wait(60)


def ask(address: str, what: str, body: dict[str, Any] | None = None, **query: str) -> Any:
    data = json.dumps(body).encode() if body is not None else None
    request = Request(f"{address}/data/{what}?{urlencode(query)}", data, {"Content-Type": "application/json"})
    with urlopen(request, timeout=600) as answer:
        return json.loads(answer.read())


def wait_until_read(address: str) -> None:
    """The server reads in the background."""
    ended = {"experimentName": "", "allowedStatuses": ["STATUS_SUCCESS"], "sliceSize": 9}
    while len(ask(address, "plugin/hparams/session_groups", ended).get("sessionGroups", [])) < len(RUNS):
        pass
    while "val/confusion_matrix" not in ask(address, "plugin/images/tags").get(SWEPT, {}):
        pass


@pytest.mark.parametrize("options", [(), ("--load_fast=false",)], ids=["fast reader", "reader in Python"])
def test_the_server_shows_all_runs_whole(root: Path, options: tuple[str, ...]) -> None:
    with server(root, *options) as address:
        wait_until_read(address)
        assert ask(address, "runs") == RUNS, "one run an experiment, by its name"
        scalars, images = ask(address, "plugin/scalars/tags"), ask(address, "plugin/images/tags")
        texts, curves = ask(address, "plugin/text/tags"), ask(address, "plugin/pr_curves/tags")
        for run in RUNS:
            assert set(images[run]) == {"train_samples", "val/confusion_matrix", "val/worst_mistakes"}
            assert sorted(texts[run]) == ["run/command", "run/configuration"]
            assert {f"val/precision_recall/{name}" for name in ("all", *range(10))} == set(curves[run])
            result = {
                "result/epoch",
                "result/best_top1",
                "result/epoch_of_best",
                "result/last_top1",
                "result/last_loss",
            }
            assert result | {"train/loss", "train/lr", "val/loss", "val/top1"} <= set(scalars[run])
            for tag in scalars[run]:
                points = ask(address, "plugin/scalars/scalars", run=run, tag=tag)
                steps = [step for _, step, _ in points]
                assert steps == (list(range(1, 7)) if tag.startswith("train/") else [2, 4, 6]), (run, tag)
            for tag in images[run]:
                shown = [image["step"] for image in ask(address, "plugin/images/images", run=run, tag=tag)]
                assert shown and all(a < b for a, b in pairwise(shown)), (run, tag)
        check_hparams(root, address)
        check_texts(root, address)
        (first, *_) = ask(address, "plugin/custom_scalars/layout")["category"]
        assert [chart["title"] for chart in first["chart"]] == ["loss", "top1"]
        for chart in first["chart"]:
            (pattern,) = chart["multiline"]["tag"]
            found = ask(address, "plugin/custom_scalars/scalars", tag=pattern, run=REQUEUED)["tag_to_events"]
            assert len(found) == 2, "of training and validation in one chart"


def check_hparams(root: Path, address: str) -> None:
    told = ask(address, "plugin/hparams/experiment", {"experimentName": ""})
    names = [info["name"] for info in told["hparamInfos"]]
    assert names[0] == "optimizer.lr", "what differs comes first"
    common = {"model.name", "data.source", "data.image_size", "training.global_batch_size", "schedule.name"}
    assert {*common, "training.precision", "experiment.seed", "training.steps", "model.depths"} <= set(names)
    first = [info["name"]["tag"] for info in told["metricInfos"]][:5]  # those that the table shows unasked
    assert first == [f"result/{name}" for name in ("best_top1", "epoch", "epoch_of_best", "last_loss", "last_top1")]
    body = {"experimentName": "", "allowedStatuses": STATUSES, "sliceSize": 9}
    groups = ask(address, "plugin/hparams/session_groups", body)["sessionGroups"]
    rows = {group["name"]: group for group in groups}
    assert sorted(rows) == RUNS
    for run, rate in zip(RUNS, (0.001, 0.002, 0.01), strict=True):
        (session,) = rows[run]["sessions"]
        assert session["status"] == "STATUS_SUCCESS"
        assert rows[run]["hparams"]["optimizer.lr"] == pytest.approx(rate), "as the last start has it"
        values = {value["name"]["tag"]: value["value"] for value in rows[run]["metricValues"]}
        val = read_metrics(root / run.partition("/")[0] / "metrics.jsonl", "val")
        assert values["result/last_top1"] == pytest.approx(val[-1]["top1"])
        assert values["result/best_top1"] == pytest.approx(max(record["top1"] for record in val))


def check_texts(root: Path, address: str) -> None:
    (command,) = ask(address, "plugin/text/text", run=REQUEUED, tag="run/command")
    assert "Started 3 times." in command["text"] and "# changed: optimizer.lr: 0.001 -&gt; 0.002" in command["text"]
    (config,) = ask(address, "plugin/text/text", run=REQUEUED, tag="run/configuration")
    assert "lr: 0.002" in config["text"] and "<code>" in config["text"]


def test_a_run_that_has_not_ended_is_not_shown_as_a_success(root: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, logging={"every_steps": 1})
    assert run_training(SPEC, TrainArguments(config, None, False, ()), StopAfter(2)) == 75
    with server(tmp_path / "experiments") as address:
        body = {"experimentName": "", "allowedStatuses": STATUSES, "sliceSize": 9}
        while not (groups := ask(address, "plugin/hparams/session_groups", body).get("sessionGroups", [])):
            pass
        assert [group["sessions"][0].get("status", STATUSES[0]) for group in groups] == ["STATUS_UNKNOWN"]


def test_its_pages_miss_nothing_in_a_browser(root: Path, tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as chromium, server(root) as address:
        wait_until_read(address)
        for tab in TABS:
            chromium.open(f"{address}/?{tab}#{tab}")  # a query of its own loads the page anew
            chromium.wait_for(f"{VISIBLE}.includes({EXPECTED.get(tab, 'experiment_0001')!r})")
            text = chromium.run(VISIBLE)
            missing = re.findall(r"No \w+(?: \w+)? data|No dashboards|not found|No matches|tags? missing|Error", text)
            assert not missing, (tab, missing, text[:2000])
        assert not chromium.complaints


EXPECTED = {
    "timeseries": "best_top1",
    "scalars": "result/best_top1",
    "custom_scalars": "Matches (6)",
    "images": "val/confusion_matrix",
    "text": "run/configuration",
    "pr_curves": "val/precision_recall/all",
    "hparams": "result/best_top1",
}
"""What a page is waited for that is filled by scripts."""
