"""Files that are either the old or the new one, whatever happens meanwhile; and how paths are shown."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import shlex
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.errors import UserError

log = logging.getLogger(__name__)

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
_OTHERS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
_OPEN_HERE = re.compile(r"/dev/std|/dev/fd/|/proc/(self|\d+)/fd/")
_ASIDE = re.compile(r"\..+\.[0-9a-f]{12}")


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replaces the content of ``path``, durably: written aside in its folder, flushed to disk, renamed into place.

    A link stays one: the file that it leads to is replaced. A pipe or a terminal, such as /dev/stdout, is written to.
    Text is UTF-8, with escapes for bytes of files' names that are not.

    Raises:
        OSError: the disk is full or the folder cannot be written; the old file is untouched and nothing lies beside it.
    """
    if is_stream(path):
        with path.open("ab") as stream:
            stream.write(_encoded(content))
        return
    path = Path(os.path.realpath(path))
    with _aside(path, content) as aside:
        os.replace(aside, path)
    sync_folder(path.parent)


def is_stream(path: Path) -> bool:
    """Returns whether what is written to ``path`` goes elsewhere: to a pipe, a terminal, or a file that is open here.

    A disk is none: what is written to it would take the place of what lies there.
    """
    if _OPEN_HERE.match(os.fspath(path.absolute())):
        return True
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def create_file(path: Path, content: str) -> bool:
    """Makes a file at once with all of its content, on disk; returns False if there is one of that name."""
    with _aside(path, content) as aside, contextlib.suppress(FileExistsError):
        try:
            os.link(aside, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))  # the name is ours
            os.replace(aside, path)
        return True
    return False


@contextlib.contextmanager
def _aside(path: Path, content: str | bytes) -> Iterator[Path]:
    """Writes a file beside ``path``, flushed to disk, which is gone afterwards unless it was renamed.

    Raises:
        OSError: names ``path``, also where the system names no file, as of a disk that is full.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    try:
        try:
            with aside.open("xb") as file:
                file.write(_encoded(content))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        yield aside
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


def _encoded(content: str | bytes) -> bytes:
    return content.encode(errors="backslashreplace") if isinstance(content, str) else content


@contextlib.contextmanager
def warning_of_a_bad_disk(path: Path) -> Iterator[None]:
    """Turns the error of a disk that cannot be written into a warning."""
    try:
        yield
    except OSError as error:
        log.warning("%s cannot be written: %s; going on without", path, error.strerror or error)


def json_text(content: Any) -> str:
    """Formats what a JSON file is to hold, indented for people."""
    return json.dumps(content, indent=2) + "\n"


def write_json(path: Path, content: Any) -> None:
    """Replaces a JSON file like :func:`write_atomic`."""
    write_atomic(path, json_text(content))


def read_json(path: Path, convert: Callable[[dict[str, Any]], Any] = dict) -> Any:
    """Reads what ``convert`` makes of the object in a JSON file; None if there is none, or none that it can read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return convert(content) if isinstance(content, dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove_leftovers(folder: Path) -> None:
    """Removes what a process killed in :func:`write_atomic` has left in ``folder``; for its only writer to call."""
    for path in folder.iterdir():
        if _ASIDE.fullmatch(path.name):
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flushes a folder's entries to disk, where its file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def check_writable(folder: Path, key: str = "experiment.root") -> None:
    """Makes sure that files can be made in ``folder``, or that it can be made.

    Args:
        key: the setting or option that names it.

    Raises:
        UserError: it is no folder, or this user may not write there.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
    if not existing.is_dir():
        raise UserError(f"{key}: {existing}: a folder is needed here, and this is none")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"{key}: {existing} cannot be written: {error.strerror}; name a folder that can be") from None


def is_folder(path: Path) -> bool:
    """Returns whether ``path`` is a folder. Raises UserError if this user may not know."""
    return _is(stat.S_ISDIR, path)


def is_file(path: Path) -> bool:
    """Returns whether ``path`` is a file. Raises UserError if this user may not know."""
    return _is(stat.S_ISREG, path)


def _is(kind: Callable[[int], bool], path: Path) -> bool:
    try:
        return kind(os.stat(path).st_mode)
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (OSError, ValueError):
        return False


def other_than_file(path: Path) -> str:
    """Returns what ``path`` is if it is there and no file, such as "a named pipe", whose opening may never end."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # whoever opens it tells
        return ""
    return "" if stat.S_ISREG(mode) else _OTHERS.get(stat.S_IFMT(mode), "something else")


def usable_path(path: Path) -> str:
    """Returns ``path`` as one can use it from the current directory: relative where it lies below, else absolute."""
    path, here = path.absolute(), Path.cwd()
    real = Path(os.path.realpath(path.parent), path.name)
    if real.is_relative_to(here):
        return os.fspath(real.relative_to(here))
    return os.fspath(real if ".." in path.parts else path)


def command(*words: str | Path) -> str:
    """Returns a command as one would paste it into a shell in the current directory, with paths as :func:`shown`."""
    typed = [usable_path(word) if isinstance(word, Path) else word for word in words]
    named = [
        f"./{text}" if isinstance(word, Path) and text[0] == "-" else text
        for word, text in zip(words, typed, strict=True)
    ]
    return shlex.join(named)


def shown(path: Path) -> str:
    """Returns :func:`usable_path` as one would type it, quoted for the shell."""
    return shlex.quote(usable_path(path))
