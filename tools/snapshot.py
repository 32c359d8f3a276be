"""A copy of the suite's code as it is now, so that later edits do not change jobs that wait or are started again.

``python -m tools.snapshot --root CODE --output DIR`` prints the copy's folder and hash as JSON.
"""

from __future__ import annotations

import filecmp
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.commands.arguments import command_parser
from engine.commands.entry import exit_code
from engine.errors import UserError
from engine.files import write_json
from engine.git_state import SNAPSHOT_MARKER, git_state
from engine.run_folder.paths import experiment_number

MOST_BYTES = 1 << 30
"""More than this is no code: somebody's data lie in the working tree and are not ignored."""

_NO_CODE = ("experiments", "data", "build", "dist")
_CACHES = ("__pycache__", "node_modules")
"""Left out, the former at the top only, where git cannot say what is ignored; so is what begins with a dot."""


def take_snapshot(root: Path, output: Path, leave_out: Sequence[Path] = ()) -> Path:
    """Copies the working tree ``root`` into a folder below ``output``; returns it.

    It is named by its hash: of the names, contents and modes of its files.

    Changed and untracked files are copied too, those that git ignores are not; neither are ``output``, the folders in
    ``leave_out`` and experiments. A link that leads to a file of the copy, or to a folder, stays a link; of one that
    leads to another file the content is copied. A file that vanishes meanwhile is left out. The same code is kept once,
    and made whole again where a file of the copy was changed or removed.

    Raises:
        UserError: a file cannot be read, there is more than a code's worth of them, or ``output`` cannot be written.
    """
    root, output = root.resolve(), output.absolute()
    left_out = [path for path in (output.resolve(), *(p.resolve() for p in leave_out)) if path != root]
    names = sorted({name for name in _files(root) if not _is_left_out(root, name, left_out)})
    _refuse_data(root, names)
    aside = output / f".{uuid.uuid4().hex[:12]}"
    try:
        aside.mkdir(parents=True)
        digest = hashlib.sha256()
        for name in names:
            digest.update(_copy(root, name, aside, names))
        snapshot = output / digest.hexdigest()[:16]
        marker = {"hash": snapshot.name, "taken_from": str(root), "git": git_state(root)}  # which are not hashed
        write_json(aside / SNAPSHOT_MARKER, marker)
        _publish(aside, snapshot)
    except OSError as error:
        raise UserError(f"the code cannot be copied to {output}: {error.filename}: {error.strerror}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return snapshot


def _files(root: Path) -> Iterator[Path]:
    """Returns names of the tree's files and links, relative to ``root``."""
    command = ["git", "-C", os.fspath(root), "ls-files", "-co", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        listed = b""
    if not listed:  # no git; or a copy that lies where a clone ignores it
        yield from _files_without_git(root)
    for text in filter(None, listed.split(b"\0")):
        name = Path(os.fsdecode(text))
        path = root / name
        if path.is_dir() and not path.is_symlink():  # a clone within the clone
            yield from (name / inner for inner in _files(path))
        else:
            yield name


def _files_without_git(root: Path) -> Iterator[Path]:
    for text, folders, files in os.walk(root):
        folder = Path(text)
        never = (*_CACHES, *(_NO_CODE if folder == root else ()))
        folders[:] = [name for name in folders if name not in never and not name.startswith(".")]
        links = [name for name in folders if (folder / name).is_symlink()]
        yield from ((folder / name).relative_to(root) for name in files + links if not name.startswith("."))


def _is_left_out(root: Path, name: Path, left_out: Sequence[Path]) -> bool:
    within = (name, *name.parents)
    return any(experiment_number(part) is not None or root / part in left_out for part in within)


def _refuse_data(root: Path, names: Sequence[Path]) -> None:
    sizes = {name: _size(root / name) for name in names}
    total = sum(sizes.values())
    if total > MOST_BYTES:
        largest = sorted(names, key=lambda name: -sizes[name])[:3]
        shown = ", ".join(f"{name} ({sizes[name] / 1e6:.0f} MB)" for name in largest)
        raise UserError(
            f"{root} holds {total / 1e9:.1f} GB that git does not ignore, too much to copy for each job; "
            f"name what is no code in .gitignore. The largest files: {shown}"
        )


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _copy(root: Path, name: Path, aside: Path, names: Sequence[Path]) -> bytes:
    """Copies one file; returns what tells it from all others, which is nothing if it is not there any more."""
    source, target = root / name, aside / name
    try:
        if source.is_symlink():
            link = _link(root, source, names)
            if link is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(link)
                return _told(name, b"link", os.fsencode(link))
        mode = source.stat().st_mode
        if not stat.S_ISREG(mode):
            return b""
        content = source.read_bytes()
    except FileNotFoundError:
        return b""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    executable = bool(mode & stat.S_IXUSR)
    target.chmod(0o755 if executable else 0o644)
    return _told(name, b"executable" if executable else b"file", content)


def _link(root: Path, source: Path, names: Sequence[Path]) -> str | None:
    """Returns where the copy of a link is to lead; None if it is to become the file, which is not copied."""
    target = source.resolve()
    within = target.relative_to(root) if target.is_relative_to(root) else None
    if within is not None and any(name == within or within in name.parents for name in names):
        return os.path.relpath(target, source.parent.resolve())
    return os.fspath(target) if target.is_dir() else None


def _told(name: Path, kind: bytes, content: bytes) -> bytes:
    """Returns name, kind and content, none of which can be taken for a part of another."""
    return b"".join(hashlib.sha256(part).digest() for part in (os.fsencode(name), kind, content))


def _publish(aside: Path, path: Path) -> None:
    """Gives a finished copy its name; if that is taken, by the same code, only what is amiss there is put right."""
    try:
        aside.rename(path)
    except OSError:
        if not path.is_dir():
            raise
        for source in sorted(aside.rglob("*")):
            target = path / source.relative_to(aside)
            if source.name == SNAPSHOT_MARKER or (source.is_dir() and not source.is_symlink()) or _same(source, target):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)


def _same(one: Path, other: Path) -> bool:
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and os.readlink(one) == os.readlink(other)
    return other.is_file() and one.stat().st_mode == other.stat().st_mode and filecmp.cmp(one, other, shallow=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Takes a snapshot as the command line says. Returns 0, or 2 for input that is wrong."""
    parser = command_parser(
        "python -m tools.snapshot",
        "Copies the suite's code as it is now, so that later edits do not change jobs that wait or are started again.",
        ["python -m tools.snapshot --root . --output experiments/.snapshots"],
    )
    parser.add_argument("--root", type=Path, required=True, metavar="CODE", help="the working tree to copy")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder of all snapshots")
    parser.add_argument("--leave-out", type=Path, nargs="*", default=[], metavar="DIR", help="folders not to copy")
    options = parser.parse_args(arguments)

    def command() -> int:
        snapshot = take_snapshot(options.root, options.output, options.leave_out)
        print(json.dumps({"path": str(snapshot), "hash": snapshot.name}))
        return 0

    return exit_code(command)


if __name__ == "__main__":
    sys.exit(main())
