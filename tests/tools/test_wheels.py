"""Which wheels a machine without a network is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tools import wheels


def item(name: str, version: str, *needs: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "version": version, "requires_dist": list(needs)}}


def test_needs_are_taken_along_but_not_what_only_torch_needs() -> None:
    report = {
        "install": [
            item("pydantic", "2.9", "pydantic-core==2.23", 'email-validator; extra == "email"'),
            item("pydantic_core", "2.23", "typing_extensions>=4.6"),
            item("typing_extensions", "4.12"),
            item("timm", "1.0", "torch", "safetensors"),
            item("safetensors", "0.4"),
            item("torch", "2.11", "sympy", "typing-extensions"),
            item("sympy", "1.13"),
        ]
    }
    pinned = ["pydantic-core==2.23", "pydantic==2.9", "safetensors==0.4", "timm==1.0", "typing-extensions==4.12"]
    assert wheels.chosen(report, ["pydantic", "timm"]) == pinned


def test_packages_have_the_bounds_of_the_suite() -> None:
    bounded, other = wheels.wanted(["pydantic", "rich"])
    assert bounded.startswith("pydantic>=2") and other == "rich"


def test_a_folder_that_holds_something_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old.whl").touch()
    assert wheels.main(["--python", "3.12", "--output", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err


@pytest.mark.parametrize("place", [__file__, f"{__file__}/wheels", "/proc/nope"])
def test_a_folder_that_cannot_be_made_is_refused_before_pip_is_asked(
    place: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "_pip", None)
    assert wheels.main(["--python", "3.12", "--output", place]) == 2
    assert capsys.readouterr().err.startswith("error: --output: ")


@pytest.mark.parametrize("version", ["NONSENSE", "2.7", "312", "3.x"])
def test_what_is_no_version_of_python_is_refused_before_pip_is_asked(
    version: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "_pip", None)
    with pytest.raises(SystemExit) as ended:
        wheels.main(["--python", version])
    assert ended.value.code == 2
    assert f"--python: '{version}' is no version of Python 3; write it as in 3.12" in capsys.readouterr().err
