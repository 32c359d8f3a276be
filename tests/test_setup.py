"""What an installation takes: the lowest versions are stated once, and torch may be another build."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_lowest_versions_that_are_tested_are_those_that_setup_allows() -> None:
    required = (ROOT / "setup.py").read_text().split("install_requires=[")[1].split("]")[0]
    bounds = dict(re.findall(r'"([a-z0-9-]+)>=([0-9.]+)', required))
    assert len(bounds) == required.count('"') // 2, "each has a lower bound"
    lines = (ROOT / "constraints" / "lowest.txt").read_text().splitlines()
    assert dict(line.split("==") for line in lines if line and not line.startswith("#")) == bounds


def planned(folder: Path, *settings: str) -> list[str]:
    """The commands of ``make install`` in a fresh clone."""
    command = ["make", "--dry-run", "--no-print-directory", "install", f"VENV={folder}/venv", *settings]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [" ".join(line.split()) for line in done.stdout.splitlines()]


def test_torch_is_installed_from_the_index_that_is_named(tmp_path: Path) -> None:
    pip = f"{tmp_path}/venv/bin/python -m pip"
    last = f"{pip} install --quiet --editable '.[dev]'"
    plain = planned(tmp_path)
    assert last in plain
    assert not any("index-url" in line or "system-site" in line for line in plain)
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / ".installed").touch()
    assert last not in planned(tmp_path), "it is there"
    other = planned(tmp_path, "TORCH_INDEX=https://example.org/cu126")
    index = f"{pip} install --quiet --index-url 'https://example.org/cu126'"
    replaced, completed = f"{index} --force-reinstall --no-deps torch torchvision", f"{index} torch torchvision"
    assert other.index(replaced) < other.index(completed) < other.index(last)
    assert not any("uninstall" in line for line in other), "an index that is mistyped takes nothing away"
    assert f"-m venv --system-site-packages {tmp_path}/venv" in " ".join(planned(tmp_path, "SYSTEM_SITE=1"))


@pytest.mark.parametrize("value", ["0", "no", "true"])
def test_only_1_turns_the_interpreters_packages_on(tmp_path: Path, value: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as ended:
        planned(tmp_path, f"SYSTEM_SITE={value}")
    assert ended.value.returncode == 2
    assert f"SYSTEM_SITE={value}: 1 is on" in ended.value.stderr


def test_the_citation_is_of_this_version() -> None:
    version = re.search(r"(?m)^version: (.+)$", (ROOT / "CITATION.cff").read_text())
    assert version and f'version="{version[1]}"' in (ROOT / "setup.py").read_text()
