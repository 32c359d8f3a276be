"""torch's flight recorder for NCCL, which keeps a rank's last collectives: it is switched on, and writes to logs/."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import MutableMapping
from pathlib import Path

import torch
import torch.distributed as dist

log = logging.getLogger(__name__)


def prepare_flight_recorder(environment: MutableMapping[str, str] = os.environ) -> None:
    """Has NCCL's groups keep their last collectives, and write them down if one times out; a user's choice stays.

    To be called before the first group is made.
    """
    environment.setdefault("TORCH_NCCL_DUMP_ON_TIMEOUT", "1")
    if "TORCH_NCCL_TRACE_BUFFER_SIZE" not in environment:  # the older name, of which newer versions of torch warn
        environment.setdefault("TORCH_FR_BUFFER_SIZE", "2000")


def keep_flight_record_in(logs: Path, environment: MutableMapping[str, str] = os.environ) -> None:
    """Has torch write to ``logs``/nccl_rank_N if a collective times out; it reads this only then."""
    if "TORCH_NCCL_DEBUG_INFO_TEMP_FILE" not in environment:  # the older name
        environment.setdefault("TORCH_FR_DUMP_TEMP_FILE", str(logs / "nccl_rank_"))


def write_flight_record(path: Path) -> threading.Thread | None:
    """Begins to write this rank's last collectives as JSON, for a hang that was found long before NCCL's time-out.

    In a thread of its own, as NCCL may be in no state to answer, which is returned. Does nothing without NCCL.
    """
    dump = getattr(torch._C._distributed_c10d, "_dump_nccl_trace_json", None)
    if dump is None or not dist.is_initialized() or dist.get_backend() != "nccl":
        return None

    def write() -> None:
        try:
            path.write_bytes(dump())
        except (OSError, RuntimeError) as error:
            log.warning("%s cannot be written: %s", path, error)

    thread = threading.Thread(target=write, name="flight recorder", daemon=True)
    thread.start()
    return thread
