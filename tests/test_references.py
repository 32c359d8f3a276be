"""What pages and docstrings name is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from classification.config import ClassificationConfig
from detection.config import DetectionConfig
from diffusion.config import DiffusionConfig
from engine.config.type_words import key_paths
from tests.environment import ROOT

PACKAGES = ("classification", "detection", "diffusion", "engine", "swin", "tests", "tools")
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for package in PACKAGES
    for file in (ROOT / package).rglob("*.py")
}
PAGES = ("README.md", "CONTRIBUTING.md", "experiments/README.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")))


@cache
def names_in(module: str) -> set[str]:
    """Names that a module and its classes define or import."""
    found = set[str]()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name) | ast.alias(name=name):
                found.add(name)
    return found


def is_there(reference: str) -> bool:
    """Whether ``engine.errors.UserError``, say, is a module or a name in one."""
    module = reference
    while module and module not in MODULES:
        module = module.rpartition(".")[0]
    inner = reference.removeprefix(module).split(".")[1:]
    return bool(module) and set(inner) <= names_in(module)


def test_docstrings_refer_to_what_is_there() -> None:
    pattern = re.compile(rf":(?:mod|func|class|meth|attr|data):`((?:{'|'.join(PACKAGES)})\.[\w.]+)`")
    missing = [
        f"{file.relative_to(ROOT)}: {reference}"
        for file in MODULES.values()
        for reference in pattern.findall(file.read_text(encoding="utf-8"))
        if not is_there(reference)
    ]
    assert not missing
    assert is_there("engine.errors.UserError") and not is_there("engine.errors.User") and not is_there("engine.no")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_files_that_are_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    written = re.findall(r"^```python\n# (\S+)$", text, re.MULTILINE)  # by whoever follows the page
    named = re.findall(rf"(?<![\w/.])((?:{'|'.join(PACKAGES)}|slurm|configs)/[a-z_/0-9]+\.[a-z]+)", text)
    assert not [name for name in named if name not in written and not Path(ROOT, name).is_file()]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_keys_that_there_are(page: str) -> None:
    schemas = (ClassificationConfig, DetectionConfig, DiffusionConfig)
    known = {".".join(keys) for schema in schemas for keys, _ in key_paths(schema)}
    sections = "|".join(key for key in known if "." not in key)
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(rf"`((?:{sections})(?:\.[a-z_]+)+)", text)
    files = (".py", ".onnx", ".json")
    assert not [name for name in named if name not in known and not is_there(name) and not name.endswith(files)]
