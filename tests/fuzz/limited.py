"""``python -m tests.fuzz.limited MODULE …``: the command, which ends with its peak of memory on standard error."""

from __future__ import annotations

import runpy
import sys

from tests.memory import peak

SAID = "peak of memory in bytes: "

if __name__ == "__main__":
    del sys.argv[0]
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    finally:
        print(f"{SAID}{peak()}", file=sys.stderr, flush=True)
