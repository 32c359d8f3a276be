"""Imported by every Python whose PYTHONPATH names this folder: makes steps take their time, and some of them fatal.

Jobs on any machine then last long enough to be interrupted, while the processor is left to the next one's start.

SLOW_STEPS: seconds that each step takes longer. CRASH_AT: a step that rank 1 never survives; HANG_AT: one at which it
hangs in the job's first start; RAISE_AT: one at which it raises an error.
"""

import os
import signal
import time

if "SLOW_STEPS" in os.environ:
    from engine.distributed.heartbeat import Heartbeat, Phase

    _at = Heartbeat.at

    def _slowly(heartbeat: Heartbeat, phase: Phase, step: int | None = None) -> None:
        if phase == "forward":
            time.sleep(float(os.environ["SLOW_STEPS"]))
        if os.environ.get("SLURM_PROCID") == "1" and step is not None:
            if step == int(os.environ.get("CRASH_AT", -1)):
                os.kill(os.getpid(), signal.SIGKILL)
            if step == int(os.environ.get("RAISE_AT", -1)):
                raise ValueError("of the user's own code")
            if step == int(os.environ.get("HANG_AT", -1)) and os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
                time.sleep(3600)
        _at(heartbeat, phase, step)

    Heartbeat.at = _slowly
