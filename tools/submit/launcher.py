"""Starts a queued job's process: from the copy of the code, and with stop signals held back until somebody hears them.

Run as a script by the nodes, ``python launcher.py ARGUMENTS``; it becomes ``python ARGUMENTS``. Imports nothing slow:
until it has run, a stop signal kills.
"""

import os
import signal
import sys

HELD_BACK = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
"""Wait for :func:`release`. A mask outlives the start of another program, unlike a handler."""


def release() -> None:
    """Delivers what was held back, and what comes from now on, to the handlers that stand."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)


def main() -> None:
    """Holds stop signals back, and becomes Python in the copy of the code."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    code = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    os.chdir(code)
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([code, path] if path else [code])
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])


if __name__ == "__main__":
    main()
