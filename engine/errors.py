"""The one exception for mistakes a user can mend."""

from __future__ import annotations


class UserError(Exception):
    """The user's input is wrong: configuration, data, weights or arguments.

    Its text says what is wrong, where, and what would be right. Entry points print it once, from rank 0 and without a
    traceback, and exit with :data:`EXIT_USER_ERROR`.
    """


EXIT_USER_ERROR = 2
"""Exit code of every command whose input is wrong."""

EXIT_INTERRUPTED = 75
"""Exit code (EX_TEMPFAIL) of a run that stopped early on a signal after saving, to be continued."""
