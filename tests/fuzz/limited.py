"""``python -m tests.fuzz.limited MODULE …``: the command, which ends with what it took on standard error."""

from __future__ import annotations

import re
import runpy
import sys
import time

from tests.memory import peak

TOOK = re.compile(r"took (\d+) bytes and (\d+) seconds of a processor")

if __name__ == "__main__":
    del sys.argv[0]
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    finally:
        print(f"took {peak()} bytes and {time.process_time():.0f} seconds of a processor", file=sys.stderr, flush=True)
