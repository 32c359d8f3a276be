"""``python -m tests.witness FOLDER MODULE ARGUMENTS...``: runs a module and notes in FOLDER what it does to files.

Each rank appends lines of an action (``list``, ``open`` or ``stat``) and a path to FOLDER/rank_N.txt.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ACTIONS = {"os.scandir": "list", "os.listdir": "list", "open": "open"}
IMAGES = (".jpg", ".png")


def main() -> None:
    """Never returns to what has not been watched: the module is the main one."""
    _, folder, module, *arguments = sys.argv
    notes = os.open(Path(folder, f"rank_{os.environ.get('RANK', '0')}.txt"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(action: str, path: Any) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            os.write(notes, f"{action} {os.fspath(path)!s}\n".encode(errors="surrogateescape"))

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in ACTIONS:
            note(ACTIONS[event], args[0])

    def noted(stat: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(path: Any, *args: Any, **options: Any) -> Any:
            note("stat", path)
            return stat(path, *args, **options)

        return wrapper

    sys.addaudithook(hook)
    os.stat = noted(os.stat)  # no event tells of these
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def watched(command: list[str], folder: Path) -> list[str]:
    """A command ``python -m MODULE ...`` under watch, with notes in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    python, flag, *rest = command
    return [python, flag, "tests.witness", str(folder), *rest]


def notes_of(folder: Path, rank: int) -> list[tuple[str, str]]:
    """The actions of a rank, each with its path, in order."""
    lines = (folder / f"rank_{rank}.txt").read_text(errors="surrogateescape").splitlines()
    return [(action, path) for action, _, path in (line.partition(" ") for line in lines)]


def touched(notes: Path, rank: int, root: Path) -> set[str]:
    """What a rank has done to images' folders and to files of tensors, besides opening images.

    Pillow before 10.3 asks for the state of each file that it opens.
    """
    done = notes_of(notes, rank)
    opened = {path for action, path in done if action == "open" and path.endswith(IMAGES)}
    return {
        f"{action} {path}"
        for action, path in done
        if (Path(path).is_relative_to(root) and not (action in ("open", "stat") and path in opened))
        or path.endswith((".pt", ".safetensors"))
    }


if __name__ == "__main__":
    main()
