"""``--help`` of the tools: what each is for, with examples, and nothing is done."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
COMMANDS = sorted({path.stem for path in TOOLS.glob("*.py")} - {"__init__"})
COMMANDS += sorted(f"{path.parent.name}.__main__" for path in TOOLS.glob("*/__main__.py"))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_and_does_nothing_else(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"python -m tools.{command.removesuffix('.__main__')}"
    with pytest.raises(SystemExit, match="0"):
        importlib.import_module(f"tools.{command}").main(["--help"])
    said = capsys.readouterr().out
    assert said.startswith(f"usage: {name} ")
    about, _, examples = said.partition("examples:\n")
    assert examples.startswith(f"  {name}")
    description = about.split("\n\n")[1]
    assert description[0].isupper() and description.split()[0].endswith("s")


def test_help_of_a_benchmark_says_what_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    from tools.bench.__main__ import MODULES, main

    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    assert all(any(line.startswith(f"  {name} ") for line in said.splitlines()) for name in MODULES)
    with pytest.raises(SystemExit, match="0"):
        main(["loader", "--help"])
    said = capsys.readouterr().out
    assert "CPU milliseconds an image" in said and "The start on fourteen million images" in said
    assert "optimizer step" not in said, "that is another benchmark"
