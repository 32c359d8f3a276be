"""Command lines that only tell something: quick, without torch, and with the right exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from detection.predict import add_arguments
from engine.commands.arguments import parse_predict_arguments, parse_train_arguments
from engine.config.run import RunConfig

ROOT = Path(__file__).resolve().parents[3]
RUN = """
import runpy, sys
command, *sys.argv[1:] = sys.argv[1:]
try:
    runpy.run_module(command if "." in command else f"{command}.train", run_name="__main__", alter_sys=True)
finally:
    heavy = {"torch", "timm", "torchvision", "numpy"} & set(sys.modules)
    assert not heavy, heavy
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``python -m TASK.train …``, or of another command, which fails if it imports what is slow."""
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def test_help_lists_the_sections_behind_the_options() -> None:
    said = run("classification", "--help")
    assert said.returncode == 0, said.stderr
    assert said.stdout.index("--resume") < said.stdout.index("  augmentation: ") < said.stdout.index("mixup")


def test_help_tells_of_a_section_and_of_the_nearest_to_one_that_there_is_not() -> None:
    said = run("detection", "--help", "optimizer")
    assert said.returncode == 0 and "optimizer.lr: a number > 0 (default 0.001)" in said.stdout
    said = run("detection", "--help", "optimzer")
    assert said.returncode == 2 and "did you mean 'optimizer'?" in said.stderr and not said.stdout


def test_a_setting_written_as_an_option_is_shown_as_it_is_written() -> None:
    said = run("classification", "--config", "run.yaml", "--optimizer.lr=3e-4")
    assert said.returncode == 2
    assert "settings have no dashes and an equals sign: optimizer.lr=3e-4" in said.stderr
    assert "no dashes" not in run("classification", "--config", "run.yaml", "--verbose").stderr


@pytest.mark.parametrize("command", ["classification.evaluate", "classification.predict", "detection.predict"])
def test_help_of_commands_that_use_a_model_lists_what_they_read(command: str) -> None:
    said = run(command, "--help")
    assert said.returncode == 0, said.stderr
    examples, settings = said.stdout.partition("examples:")[2].split("settings that matter")
    assert f"  python -m {command} --experiment " in examples
    listed = set(re.findall(r"\w+", settings))
    assert {"data", "root", "image_size", "weights"} <= listed
    assert not listed & {"optimizer", "schedule", "loss", "augmentation", "epochs", "sampling", "drop_last", "metric"}
    said = run(command, "--help", "data")
    assert "data.image_size: " in said.stdout and "data.drop_last" not in said.stdout
    said = run(command, "--help", "training.ema")
    assert said.returncode == 2 and "--help: this command does not read training.ema" in said.stderr


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_the_resolved_configuration_is_printed(form: str) -> None:
    config = ["--config", "configs/detection/quickstart.yaml", "optimizer.lr=0.5", "experiment.root=$SCRATCH/runs"]
    said = run("detection", "--print-config", *([form] if form == "json" else []), *config, SCRATCH="/scratch/me")
    assert said.returncode == 0, said.stderr
    tree = json.loads(said.stdout) if form == "json" else yaml.safe_load(said.stdout)
    assert (tree["optimizer"]["lr"], tree["experiment"]["root"]) == (0.5, "/scratch/me/runs")


def test_a_wrong_configuration_is_not_printed() -> None:
    said = run("detection", "--config", "configs/detection/quickstart.yaml", "--print-config", "optimizer.lr=-1")
    assert (said.returncode, said.stdout) == (2, "")
    assert "command line: optimizer.lr: must be a number > 0" in said.stderr


def test_a_form_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_train_arguments("toy", ["--config", "x.yaml", "--print-config=xml"], lambda: RunConfig)
    assert "invalid choice: 'xml'" in capsys.readouterr().err


def test_a_command_without_arguments_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_train_arguments("toy", [], lambda: RunConfig)
    assert "--config FILE is needed" in capsys.readouterr().err


def test_an_empty_path_is_not_this_folder(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_train_arguments("toy", ["--config", ""], lambda: RunConfig)
    assert "argument --config: '' names nothing; this folder is ." in capsys.readouterr().err
    given = ["--experiment", "e", "--output", "", "--images", "a.jpg"]
    with pytest.raises(SystemExit, match="2"):
        parse_predict_arguments("detection", "", add_arguments, given, lambda: RunConfig)
    assert "argument --output: '' names nothing" in capsys.readouterr().err


def test_settings_may_stand_behind_the_images() -> None:
    setting = "detection.postprocess.score_threshold=0.5"
    given = ["--experiment", "e", "--output", "o", "--images", "a.jpg", "--images", "b.jpg", setting]
    arguments = parse_predict_arguments("detection", "", add_arguments, given, lambda: RunConfig)
    assert arguments.images == ["a.jpg", "b.jpg"] and arguments.overrides == [setting]
    assert arguments.output == Path("o")
