"""The one exception for mistakes a user can mend, and what else needs a line and no traceback."""

from __future__ import annotations

import errno

from engine.text import shortened


class UserError(Exception):
    """The user's input is wrong: configuration, data, weights or arguments.

    Its text says what is wrong, where, and what would be right. Entry points print it once, from rank 0 and without a
    traceback, and exit with :data:`EXIT_USER_ERROR`.
    """


EXIT_USER_ERROR = 2
"""Exit code of every command whose input is wrong."""

EXIT_INTERRUPTED = 75
"""Exit code (EX_TEMPFAIL) of a run that stopped early on a signal after saving, to be continued."""

EXIT_CTRL_C = 130
"""Exit code of a command that Ctrl-C has ended at once, as shells have it."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""What systems call it that a disk takes no more."""


def in_a_line(error: BaseException) -> tuple[str, int] | None:
    """Returns what to say of an error whose traceback would tell nothing, and the exit code; None for any other.

    These are mistakes of the user's, paths that are too long, files that a disk has no room for, and Ctrl-C.
    """
    match error:
        case UserError():
            return str(error).strip(), EXIT_USER_ERROR
        case KeyboardInterrupt():
            return "stopped by Ctrl-C", EXIT_CTRL_C
        case OSError(errno=errno.ENAMETOOLONG):
            return f"no path can be as long as {shortened(repr(error.filename), 80)}", EXIT_USER_ERROR
        case OSError(errno=number, filename=str(name)) if number in NO_ROOM:
            return f"{name} cannot be written: {error.strerror}", 1
    return None
