"""results/<split> holds the latest evaluation; what another checkpoint gave is kept beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.run_folder.paths import RunDir
from engine.run_folder.results import MADE_FROM, begin_results


def evaluated(run_dir: RunDir, value: str, *made_from) -> Path:
    folder = begin_results(run_dir, "val", *made_from)
    (folder / "metrics.json").write_text(value)
    return folder


def kept(run_dir: RunDir) -> dict[str, str]:
    return {folder.name: (folder / "metrics.json").read_text() for folder in run_dir.results.iterdir()}


def test_the_same_evaluation_replaces_its_results(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    for value in ("1", "2"):
        folder = evaluated(run_dir, value, "best.pt", 10, ["data.image_size=32"])
    assert folder == run_dir.results_for("val")
    assert kept(run_dir) == {"val": "2"}
    made_from = {"checkpoint": "best.pt", "step": 10, "changes": ["data.image_size=32"]}
    assert json.loads((folder / MADE_FROM).read_text()) == made_from


def test_another_checkpoint_step_or_setting_moves_the_earlier_results(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = RunDir(tmp_path)
    caplog.set_level("INFO")
    evaluated(run_dir, "best", "best.pt", 10, [])
    evaluated(run_dir, "last", "last.pt", 12, [])
    assert "are now in val_best_step_00000010" in caplog.text
    evaluated(run_dir, "large", "last.pt", 12, ["data.image_size=[32, 64]", "data.root=/a/b"])
    evaluated(run_dir, "best again", "best.pt", 10, [])
    evaluated(run_dir, "of a later step", "best.pt", 20, [])
    assert kept(run_dir) == {
        "val": "of a later step",
        "val_last_step_00000012": "last",
        "val_last_step_00000012_image_size=-32,-64-_root=b-40aad488": "large",
        "val_best_step_00000010": "best again",
    }


def test_settings_of_any_length_make_short_names_that_differ(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    for number in range(3):
        evaluated(run_dir, str(number), "best.pt", 10, [f"data.root=/{'long/' * 30}{number}/shop"])
    evaluated(run_dir, "one", "best.pt", 10, ["data.image_size=64"])
    evaluated(run_dir, "none", "best.pt", 10, [])
    names = sorted(kept(run_dir))
    assert [name[:32] for name in names] == ["val", "val_best_step_00000010_data.imag"] + [
        "val_best_step_00000010_root=shop"
    ] * 3
    assert max(map(len, names)) < 80 and "val_best_step_00000010_data.image_size=64" in names


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"checkpoint": 3, "step": 1, "changes": []}'])
def test_a_folder_that_does_not_say_what_it_comes_from_is_written_over(tmp_path: Path, content: str) -> None:
    run_dir = RunDir(tmp_path)
    folder = evaluated(run_dir, "old", "best.pt", 1, [])
    (folder / MADE_FROM).write_text(content)
    evaluated(run_dir, "new", "last.pt", 2, [])
    assert kept(run_dir) == {"val": "new"}
