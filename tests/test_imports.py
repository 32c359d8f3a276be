"""The packages depend on each other in one direction only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TASKS = {"classification", "detection", "diffusion"}
COMMANDS = ("train", "evaluate", "predict")
ALLOWED = {
    "swin": {"swin"},
    "engine": {"engine"},
    "classification": {"classification", "engine", "swin"},
    "detection": {"detection", "engine", "swin"},
    "diffusion": {"diffusion", "engine", "swin"},
    "tools": {"tools", "engine", "swin"} | TASKS,
}


def imported(file: Path) -> set[str]:
    """Top-level packages of the project that a file imports anywhere, in functions and for type checks too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names & {*ALLOWED, "tests"}


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_point_one_way(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {str(file.relative_to(ROOT)): imported(file) - ALLOWED[package] for file in files}
    assert not {file: names for file, names in wrong.items() if names}


def test_the_engine_names_no_task():
    for file in (ROOT / "engine").rglob("*.py"):
        words = {node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)}
        assert not words & TASKS, file


@pytest.mark.parametrize(
    "module", [f"{task}.{command}" for task in ("classification", "detection") for command in COMMANDS]
)
def test_commands_start_without_torch(module):
    """Signal handlers and --help must not wait for seconds of imports."""
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("task", "config"),
    [("classification", "quickstart"), ("classification", "swin_tiny_imagenet"), ("detection", "swin_b_fpn")],
)
def test_a_swins_configuration_is_read_without_torch(task, config):
    """Whoever submits or checks a run, or mistypes a key, need not wait for it."""
    code = (
        f"import sys; from pathlib import Path; from {task}.train import schema;"
        "from engine.config.load import load_config;"
        f"load_config(schema(), Path('configs/{task}/{config}.yaml'));"
        "sys.exit(bool({'torch', 'timm', 'torchvision'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_swin_package_offers_what_it_lists():
    import swin

    assert all(getattr(swin, name).__name__ == name for name in swin.__all__)
    with pytest.raises(AttributeError, match="no attribute 'swin_huge'"):
        _ = swin.swin_huge
