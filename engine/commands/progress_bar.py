"""How far training is: a bar on a terminal, a line for each record elsewhere."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from tqdm import tqdm

from engine.log import FILE_ONLY, on_terminal

log = logging.getLogger(__name__)

_BAR = "{desc} {percentage:3.0f}%|{bar}| step {n_fmt}/{total_fmt}{postfix}  eta {remaining}"


class Progress:
    """Shows the progress of a run from step ``start`` to ``total_steps``."""

    def __init__(self, total_steps: int, start: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._start = total_steps, start
        self._clock, self._begun = clock, clock()
        self._bar: tqdm | None = None
        if on_terminal():
            sized = os.get_terminal_size(sys.stdout.fileno()).columns > 0  # some remote terminals have no size
            width: dict[str, Any] = {"dynamic_ncols": True} if sized else {"ncols": 100}
            self._bar = tqdm(
                total=total_steps, initial=start, file=sys.stdout, bar_format=_BAR, desc="epoch -", **width
            )

    def advance(self, step: int) -> None:
        """Moves the bar, if there is one, to ``step``."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def update(self, step: int, epoch: float, metrics: Mapping[str, float]) -> None:
        """Shows a training record: the mean values up to ``step``, at which ``epoch`` (a fraction) of data is done."""
        epochs, values = epoch_text(step, epoch, self._total), values_text(metrics)
        remaining = (self._clock() - self._begun) / max(1, step - self._start) * (self._total - step)
        eta = f"eta {tqdm.format_interval(remaining)}"
        line = "  ".join(filter(None, (epochs, f"step {step}/{self._total}", values, eta)))
        log.info("%s", line, extra=FILE_ONLY if self._bar is not None else None)
        if self._bar is not None:
            self._bar.set_description_str(epochs, refresh=False)
            self._bar.set_postfix_str(values, refresh=False)
            self.advance(step)
            self._bar.refresh()

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def epoch_text(step: int, epoch: float, total_steps: int) -> str:
    """Returns ``epoch 3/36``: the one that ``step`` lies in, of those that ``total_steps`` begin."""
    if step <= 0 or epoch <= 0:
        return "epoch 1"
    tolerance = 1e-6  # epochs come as quotients of whole numbers
    return f"epoch {math.ceil(epoch - tolerance)}/{math.ceil(epoch * total_steps / step - tolerance)}"


def values_text(metrics: Mapping[str, float]) -> str:
    """Returns ``loss 0.512  lr 9.8e-04  312 img/s``, as far as they are there."""
    shown = {"loss": "loss {:.4g}", "lr": "lr {:.1e}", "images_per_second": "{:.3g} img/s"}
    return "  ".join(text.format(metrics[name]) for name, text in shown.items() if metrics.get(name) is not None)
