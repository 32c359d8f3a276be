"""Copies of the code: what is in them, that the same code is copied once, and that nothing leads back to the tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import UserError
from engine.git_state import SNAPSHOT_MARKER, describe_code, git_state
from tools import snapshot
from tools.snapshot import take_snapshot

ROOT = Path(__file__).resolve().parents[2]


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def content(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != SNAPSHOT_MARKER]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with a tracked, a changed, a removed, an untracked and an ignored file."""
    clone = tmp_path / "experiment_2026" / "clone"
    (clone / "package").mkdir(parents=True)
    (clone / ".gitignore").write_text("experiments/\n*.pyc\n")
    (clone / "package" / "tracked.py").write_text("tracked")
    (clone / "changed name.py").write_text("before")
    (clone / "removed.py").write_text("removed")
    git(clone, "init", "--quiet")
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message", "Start")
    (clone / "changed name.py").write_text("after")
    (clone / "removed.py").unlink()
    (clone / "package" / "größe.sh").write_text("untracked")
    (clone / "package" / "größe.sh").chmod(0o755)
    (clone / "ignored.pyc").write_text("ignored")
    return clone


def test_a_copy_holds_what_git_does_not_ignore_as_it_is_now(clone, tmp_path):
    taken = take_snapshot(clone, tmp_path / "copies")
    assert taken.parent == tmp_path / "copies" and len(taken.name) == 16
    assert content(taken) == {
        ".gitignore": "experiments/\n*.pyc\n",
        "package/tracked.py": "tracked",
        "changed name.py": "after",
        "package/größe.sh": "untracked",
    }
    assert os.access(taken / "package" / "größe.sh", os.X_OK)
    assert not os.access(taken / "package" / "tracked.py", os.X_OK)


def test_the_same_code_is_copied_once_and_other_code_has_another_hash(clone, tmp_path):
    output = tmp_path / "copies"
    first = take_snapshot(clone, output)
    os.utime(clone / "changed name.py", (1, 1))
    assert take_snapshot(clone, output) == first
    edits = [
        lambda: (clone / "package" / "tracked.py").write_text("tracket"),
        lambda: (clone / "package" / "tracked.py").chmod(0o755),
        lambda: (clone / "package" / "tracked.py").rename(clone / "tracked.py"),
        lambda: (clone / "link").symlink_to("tracked.py"),
    ]
    hashes = {first.name}
    for edit in edits:
        edit()
        hashes.add(take_snapshot(clone, output).name)
    assert len(hashes) == 5
    assert sorted(path.name for path in output.iterdir()) == sorted(hashes), "and nothing lies beside them"


def test_a_damaged_copy_is_made_whole(clone, tmp_path):
    taken = take_snapshot(clone, tmp_path / "copies")
    whole = content(taken)
    (taken / "package" / "tracked.py").write_text("edited in the copy")
    (taken / "changed name.py").unlink()
    assert content(take_snapshot(clone, tmp_path / "copies")) == whole


def test_experiments_and_copies_within_the_tree_are_not_copied(clone):
    for folder in ("runs/.snapshots/0000", "runs/other", "experiment_0007/checkpoints"):
        (clone / folder).mkdir(parents=True)
        (clone / folder / "big.pt").write_text("big")
    first = take_snapshot(clone, clone / "runs" / ".snapshots", [clone / "runs"])
    assert not [name for name in content(first) if "big" in name]
    assert take_snapshot(clone, clone / "runs" / ".snapshots", [clone / "runs", clone]) == first


def test_links_lead_into_the_copy_or_to_data_or_become_files(clone, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "outside.py").write_text("outside")
    (clone / "experiments").mkdir()
    (clone / "experiments" / "ignored.yaml").write_text("ignored")
    (clone / "package" / "up.py").symlink_to("../changed name.py")
    (clone / "folder").symlink_to("package")
    (clone / "data").symlink_to(tmp_path / "data")
    (clone / "copied.py").symlink_to("../../outside.py")
    (clone / "kept.yaml").symlink_to("experiments/ignored.yaml")
    (clone / "dangling").symlink_to("nowhere")
    copy = take_snapshot(clone, tmp_path / "copies")
    assert os.readlink(copy / "package" / "up.py") == "../changed name.py"
    assert os.readlink(copy / "folder") == "package"
    assert os.readlink(copy / "data") == str(tmp_path / "data")
    for name, text in {"copied.py": "outside", "kept.yaml": "ignored"}.items():
        assert not (copy / name).is_symlink()
        assert (copy / name).read_text() == text
    assert not (copy / "dangling").is_symlink()


def test_a_clone_within_the_clone_is_copied_as_git_sees_it(clone, tmp_path):
    inner = clone / "inner"
    inner.mkdir()
    git(inner, "init", "--quiet")
    (inner / ".gitignore").write_text("*.log\n")
    (inner / "code.py").write_text("inner")
    (inner / "noise.log").write_text("noise")
    names = content(take_snapshot(clone, tmp_path / "copies"))
    assert names["inner/code.py"] == "inner"
    assert "inner/noise.log" not in names


def test_a_file_that_vanishes_meanwhile_is_left_out(clone, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "_files", lambda root: [Path("gone.py"), Path("package", "tracked.py")])
    assert content(take_snapshot(clone, tmp_path / "copies")) == {"package/tracked.py": "tracked"}


def test_without_git_everything_is_copied_but_environments_caches_and_experiments(tmp_path):
    tree = tmp_path / "tree"
    for name in (
        "package/code.py",
        "package/data/code.py",
        ".venv/bin/python",
        "package/__pycache__/code.pyc",
        "experiments/README.md",
    ):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    (tree / "data").symlink_to(tmp_path)
    (tree / "linked").symlink_to(tmp_path)
    taken = take_snapshot(tree, tmp_path / "copies")
    assert sorted(content(taken)) == ["package/code.py", "package/data/code.py"]
    assert (taken / "linked").is_symlink()


def test_a_copy_can_be_copied_also_where_a_clone_ignores_it(clone):
    first = take_snapshot(clone, clone / "experiments" / ".snapshots")
    again = take_snapshot(first, clone / "experiments" / "again")
    assert "package/tracked.py" in content(again)


def test_data_in_the_tree_are_refused_by_name(clone, tmp_path):
    with (clone / "images.tar").open("wb") as file:
        file.truncate(snapshot.MOST_BYTES + 1)
    with pytest.raises(UserError, match=r"holds 1.1 GB .* name what is no code in .gitignore.*: images.tar \(1074 MB"):
        take_snapshot(clone, tmp_path / "copies")
    assert not (tmp_path / "copies").exists()


def test_the_copy_says_what_it_was_copied_from(clone, tmp_path):
    copies = clone / "experiments" / ".snapshots"
    taken = take_snapshot(clone, copies)
    state = git_state(clone)
    git(clone, "commit", "--quiet", "--all", "--message", "Later")
    assert describe_code(taken) == {"git": state, "snapshot": taken.name}
    assert describe_code(clone) == {"git": git_state(clone), "snapshot": None}
    assert state["commit"] != git_state(clone)["commit"]


def test_the_command_copies_this_suite_without_torch_and_the_copy_runs(tmp_path):
    command = [sys.executable, "-m", "tools.snapshot", "--root", str(ROOT), "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert Path(told["path"]).name == told["hash"]
    code = (
        "import sys, engine.run_folder.paths as module, tools.snapshot; print(module.__file__); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=told["path"], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).is_relative_to(told["path"])


def test_a_place_that_cannot_be_written_is_named(clone, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be copied to .*/file/copies"):
        take_snapshot(clone, tmp_path / "file" / "copies")
