"""CONTRIBUTING.md's pages on adding something, followed to the letter in a copy of the tree."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from engine.datasets.labelled import open_digits
from tests.classification.small import TINY, merged
from tests.environment import ROOT, clean_environment

COPIED = ("classification", "configs", "detection", "docs", "engine", "swin", "tests", "tools", "pyproject.toml")
DRIVER = """
import json, runpy, sys, traceback
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

ends = []
for module, *arguments in json.loads(sys.argv[1]):
    sys.argv, output, code = [module, *arguments], StringIO(), 0
    with redirect_stdout(output), redirect_stderr(output):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            code = 1
            traceback.print_exc()
    ends.append([code, output.getvalue()])
print(json.dumps(ends))
"""
"""Runs `python -m` of several modules in one process, which imports torch once."""


def blocks(heading: str) -> list[tuple[str, str]]:
    """Language and content of each block of code below a heading of the page."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (part,) = re.findall(rf"^### {heading}$(.*?)^##", page, re.DOTALL | re.MULTILINE)
    return re.findall(r"^```(\w+)\n(.*?)^```$", part, re.DOTALL | re.MULTILINE)


def write(tree: Path, block: str) -> Path:
    """Writes a block that names its file in its first line."""
    name = block.partition("\n")[0].removeprefix("# ")
    assert not (tree / name).exists(), f"{name} is there already"
    (tree / name).write_text(block.partition("\n")[2], encoding="utf-8")
    return Path(name)


def edit(tree: Path, block: str) -> Path:
    """Makes the changes of a block, each at the one place of the file that looks so."""
    first, _, rest = block.partition("\n")
    name = first.strip("@ ")
    text = (tree / name).read_text(encoding="utf-8")
    for change in re.split(r"^@@\n", rest, flags=re.MULTILINE):
        lines = [(line[:1] or " ", line[1:]) for line in change.splitlines()]
        old, new = ("".join(f"{line}\n" for sign, line in lines if sign in signs) for signs in (" -", " +"))
        assert text.count(f"\n{old}") == 1, f"{name} has other lines by now, or has these twice:\n{old}"
        text = text.replace(f"\n{old}", f"\n{new}")
    (tree / name).write_text(text, encoding="utf-8")
    return Path(name)


def follow(tree: Path, heading: str) -> tuple[list[Path], dict[str, Any]]:
    """Does what a page says in a new copy of the tree; returns the files that it is about, and its YAML."""
    tree.mkdir()
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, tree / name)
    found = blocks(heading)
    changed = [{"python": write, "diff": edit}[kind](tree, text) for kind, text in found if kind != "yaml"]
    ((_, settings),) = [block for block in found if block[0] == "yaml"]
    return changed, yaml.safe_load(settings)


def run(tree: Path, *commands: list[str]) -> list[tuple[int, str]]:
    """Exit code and output of each `python -m`, in a tree that is no other's."""
    environment = clean_environment({"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"})
    command = [sys.executable, "-c", DRIVER, json.dumps(commands)]
    ended = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return [(code, output) for code, output in json.loads(ended.stdout.splitlines()[-1])]


@pytest.mark.parametrize(
    ("heading", "misspelt", "meant"),
    [
        ("A loss", "loss.epsilom", "epsilon"),
        ("A model", "model.deepth", "depth"),
        ("A source of data", "data.flie", "file"),
        ("A learning-rate schedule", "schedule.powre", "power"),
    ],
)
def test_whoever_follows_a_page_can_train(tmp_path: Path, heading: str, misspelt: str, meant: str) -> None:
    tree = tmp_path / "tree"
    changed, settings = follow(tree, heading)
    ((section, values),) = settings.items()
    name = values.get("name") or values["source"]
    if section == "data":
        arrays = {split: open_digits(split) for split in ("train", "val")}
        pixels = {f"{k}_images": np.stack([np.asarray(v.image(i)) for i in range(160)]) for k, v in arrays.items()}
        labels = {f"{k}_labels": v.labels[:160, None].astype(np.uint8) for k, v in arrays.items()}
        np.savez(tree / values["file"], **pixels, **labels)
    config = merged(TINY, {"experiment": {"root": str(tmp_path / "experiments")}})
    config["training"] = {"epochs": 1, "global_batch_size": 80, "precision": "fp32"}
    kept = {"image_size": 16, "workers": 0} if section == "data" else {}
    config[section] = {**values, **kept}
    (tree / "run.yaml").write_text(yaml.safe_dump(config))

    files = list(map(str, changed))
    tests = [file for file in files if file.startswith("tests/")]
    train = ["classification.train", "--config", "run.yaml"]
    schemas, rooms, told, refused, tested, trained = run(
        tree,
        ["tools.schemas"],
        ["tools.rooms"],
        ["classification.train", "--help", section],
        [*train, f"{misspelt}=1"],
        ["pytest", "-q", "-p", "no:cacheprovider", "tests/test_rooms.py", *tests],
        train,
    )
    assert schemas[0] == 0 and rooms[0] == 0
    (described,) = [
        kind
        for kind in json.loads((tree / "configs/schema/classification.json").read_text())["$defs"].values()
        if name in kind["properties"].get("source" if section == "data" else "name", {}).values()
    ]
    assert meant in described["properties"]
    assert told[0] == 0 and name in told[1] and f"{section}.{meant}: " in told[1]
    assert refused[0] == 2 and f"{misspelt}: unknown key; did you mean '{meant}'?" in refused[1]
    assert tests and tested[0] == 0, tested[1]
    assert trained[0] == 0, trained[1]
    used = yaml.safe_load((tmp_path / "experiments/experiment_0001/config.yaml").read_text())
    assert used[section]["source" if section == "data" else "name"] == name
    for check in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *check, "--no-cache", *files]
        looked = subprocess.run(command, cwd=tree, capture_output=True, text=True)
        assert looked.returncode == 0, looked.stdout
