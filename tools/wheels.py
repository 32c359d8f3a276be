"""``python -m tools.wheels --python 3.12 --output DIR``: what a PyTorch image lacks of the suite's needs, as wheels.

For a machine without a network that has torch, torchvision, timm, numpy and the like already. There, in the clone::

    python -m pip install --no-index --no-deps --target site DIR/*.whl
    PYTHONPATH=$PWD/site python -m classification.train ...

pip chooses the versions here, for that Python on 64-bit Linux, so that they fit each other; then it downloads them.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from engine.commands.arguments import command_parser
from engine.commands.entry import exit_code
from engine.errors import UserError
from engine.files import check_writable

LACKING = ("pydantic", "submitit", "pycocotools", "faster-coco-eval")
THERE = ("torch", "torchvision", "numpy")
"""Never brought along, nor what only they need."""
GLIBC = range(17, 36)
"""Minor versions of glibc 2 for which wheels are named and that a machine with a current torch has."""


def main(arguments: list[str] | None = None) -> int:
    """Runs what the command line asks for and returns the exit code."""
    parser = command_parser(
        "python -m tools.wheels",
        "Downloads what a machine without a network lacks beside PyTorch, as wheels that pip installs there.",
        ["python -m tools.wheels --python 3.12 --output dist/wheels"],
    )
    parser.add_argument(
        "--python", type=_version, required=True, metavar="X.Y", help="Python's version on that machine, such as 3.12"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new or empty folder for them")
    parser.add_argument(
        "--machine", default="x86_64", choices=("x86_64", "aarch64"), help="its processor (default: x86_64)"
    )
    parser.add_argument("packages", nargs="*", default=LACKING, help=f"what it lacks (default: {', '.join(LACKING)})")
    options = parser.parse_args(arguments)

    def command() -> int:
        wheels = download(options.packages, options.python, options.machine, options.output)
        for wheel in wheels:
            print(f"{wheel.stat().st_size / 1e6:6.1f} MB  {wheel.name}")
        print(f"{sum(wheel.stat().st_size for wheel in wheels) / 1e6:6.1f} MB  in {options.output}")
        return 0

    return exit_code(command)


def _version(text: str) -> str:
    if not re.fullmatch(r"3\.\d+(\.\d+)?", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"'{text}' is no version of Python 3; write it as in 3.12")
    return text


def download(packages: Sequence[str], python: str, machine: str, folder: Path) -> list[Path]:
    """Downloads wheels of ``packages`` and of what they need into ``folder``; returns them.

    Raises:
        UserError: the folder holds something, is none or cannot be made, or pip finds no wheels that fit.
    """
    check_writable(folder, "--output")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"--output {folder}: is not empty; a second version of a package would stop the installation")
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in GLIBC] + [f"manylinux2014_{machine}"]
    target = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]  # of another Linux machine
    target += [option for platform in platforms for option in ("--platform", platform)]
    with tempfile.TemporaryDirectory() as name:
        report = Path(name) / "report.json"
        aside = ("--dry-run", "--ignore-installed", "--target", name, "--report", report)
        _pip("install", *aside, *target, *wanted(packages))
        pinned = chosen(json.loads(report.read_text(encoding="utf-8")), packages)
    _pip("download", "--no-deps", "--dest", folder, *target, *pinned)
    return sorted(folder.glob("*.whl"))


def wanted(packages: Sequence[str]) -> list[str]:
    """Returns ``packages`` with the bounds that setup.py has for them."""
    ours = {canonicalize_name(Requirement(text).name): Requirement(text) for text in requires("swin-hpc") or []}
    return [
        f"{name}{ours[name].specifier}" if (name := canonicalize_name(package)) in ours else package
        for package in packages
    ]


def chosen(report: Mapping[str, Any], packages: Iterable[str]) -> list[str]:
    """Returns ``name==version`` of the packages and of what they need, by pip's report, without :data:`THERE`."""
    entries = {canonicalize_name(item["metadata"]["name"]): item["metadata"] for item in report["install"]}
    found: dict[str, str] = {}
    waiting = [canonicalize_name(Requirement(package).name) for package in packages]
    while waiting:
        name = waiting.pop()
        if name in found or name in THERE or name not in entries:  # not there: a need of another platform
            continue
        found[name] = f"{name}=={entries[name]['version']}"
        waiting += [canonicalize_name(Requirement(text).name) for text in entries[name].get("requires_dist", [])]
    return sorted(found.values())


def _pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"pip finds no wheels that fit: {done.stderr.strip()}")


if __name__ == "__main__":
    sys.exit(main())
