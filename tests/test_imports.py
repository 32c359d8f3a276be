"""The packages depend on each other in one direction only."""

from __future__ import annotations

import ast
import re
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


def named(text: str) -> set[str]:
    """Tasks that Python code names: in imports, and in texts that are a task or a module of one."""
    nodes = list(ast.walk(ast.parse(text)))
    words = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    words += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    words += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return {match[1] for word in words if (match := re.fullmatch(rf"({'|'.join(TASKS)})([.:/]\S*)?", word))}


def test_engine_and_tools_name_no_task():
    """Benchmarks do: each is about one."""
    files = [file for package in ("engine", "tools") for file in (ROOT / package).rglob("*.py")]
    assert len(files) > 150
    naming = {str(file.relative_to(ROOT)): named(file.read_text()) for file in files if "bench" not in file.parts}
    assert not {file: tasks for file, tasks in naming.items() if tasks}


@pytest.mark.parametrize(
    "text",
    [
        "from detection.x import y",
        "import detection",
        "a = 'detection'",
        "b = 'detection.x:Y'",
        "f(f'{x}', 'detection')",
    ],
)
def test_naming_a_task_is_seen(text):
    assert named(text) == {"detection"}
    assert not named('"""What detection.train does."""\nfrom engine import x')


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
        f"import sys; from pathlib import Path; from {task}.spec import SPEC;"
        "from engine.config.load import load_config;"
        f"load_config(SPEC.schema(), Path('configs/{task}/{config}.yaml'));"
        "sys.exit(bool({'torch', 'timm', 'torchvision'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_swin_package_offers_what_it_lists():
    import swin

    assert all(getattr(swin, name).__name__ == name for name in swin.__all__)
    with pytest.raises(AttributeError, match="no attribute 'swin_huge'"):
        _ = swin.swin_huge
