"""Where event files lie, which is what TensorBoard calls a run."""

from pathlib import Path

import pytest

from engine.board.place import board_for, find_board
from engine.run_folder.paths import RunDir


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("", "."),
        ("Swin-T, 224 px", "Swin-T, 224 px"),
        ("lr=1e-3 a/b: c", "lr=1e-3 a b c"),
        ("größer 大", "größer 大"),
        ("../../etc", "etc"),
        (" . ", "."),
        ("Results", "Results run"),
        ("tensorboard", "tensorboard run"),
        ("config.yaml", "config.yaml run"),
        ("x" * 300, "x" * 80),
    ],
)
def test_a_run_is_called_by_its_folder_and_its_readable_name(tmp_path: Path, name: str, folder: str) -> None:
    (tmp_path / "config.yaml").touch()
    assert board_for(tmp_path, name) == tmp_path / folder
    assert find_board(tmp_path) is None and find_board(tmp_path / "missing") is None


@pytest.mark.parametrize("place", ["tensorboard", ".", "first name"])
def test_a_run_stays_one_run_under_another_name_and_in_folders_of_earlier_versions(tmp_path: Path, place: str) -> None:
    for other in ("logs", "results/val", "checkpoints"):
        (tmp_path / other).mkdir(parents=True)
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "events.out.tfevents.1.host.2.0").touch()
    assert board_for(tmp_path, "second name") == find_board(tmp_path) == RunDir(tmp_path).tensorboard
    assert find_board(tmp_path) == tmp_path / place
