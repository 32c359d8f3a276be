"""The folder that the evaluation of a checkpoint writes to: results/<split>, without losing another one's results."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.files import read_json, write_json
from engine.run_folder.paths import RunDir

log = logging.getLogger(__name__)

MADE_FROM = "made_from.json"
"""Says within a folder of results which checkpoint and settings they come from."""
LONGEST = 60
"""Characters of a folder's name, behind the split."""


def begin_results(run_dir: RunDir, split: str, checkpoint: str, step: int, changes: Sequence[str]) -> Path:
    """Makes results/<split> for an evaluation of the file ``checkpoint`` with ``changes``; returns it.

    It always holds the latest evaluation. Results of another checkpoint or other settings that lie there are moved
    to a folder beside it, named for what they come from; those of the same one may be overwritten.
    """
    folder = run_dir.results_for(split)
    made_from = {"checkpoint": checkpoint, "step": step, "changes": list(changes)}
    before = read_json(folder / MADE_FROM, lambda content: content if _label(content) else None)
    if before is not None and before != made_from:
        kept = folder.with_name(f"{split}_{_label(before)}")
        if kept.exists():
            shutil.rmtree(kept)
        folder.rename(kept)
        log.info("the earlier results in %s, of %s, are now in %s", folder.name, _label(before), kept.name)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / MADE_FROM, made_from)
    return folder


def _label(made_from: dict[str, Any]) -> str:
    """Returns ``best_step_00000120_data.image_size=256``, fit for a folder's name.

    A long one, or one with characters that names better do without, is shortened; a digest tells it from others then.
    """
    origin = [Path(made_from["checkpoint"]).stem, f"step_{made_from['step']:08d}"]
    full = "_".join(dict.fromkeys([*origin, *made_from["changes"]]))
    if _fit(full) == full and len(full) <= LONGEST:
        return full
    split = (change.partition("=") for change in made_from["changes"])
    short = [f"{key.rpartition('.')[2]}={Path(value).name}" for key, _, value in split]
    digest = hashlib.sha256(full.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{_fit('_'.join(dict.fromkeys([*origin, *short])))[: LONGEST - 9]}-{digest}"


def _fit(text: str) -> str:
    return re.sub(r"[^\w.=,+-]+", "-", text)
