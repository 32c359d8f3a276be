"""How often the host waits for the device in a step, beyond the one event with which it reads the step before."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator

import torch

from tests.gpu.findings import Findings
from tests.gpu.models import diffusion_trainer, resnet_trainer, ssd_trainer, swin_trainer

WARM_UP, STEPS = 5, 10
CLIPPED = ("training.clip_grad_norm=5.0", "training.ema={decay: 0.9}")
CASES = {
    "swin bf16": (swin_trainer, ["training.precision=bf16", *CLIPPED]),
    "swin fp16": (swin_trainer, ["training.precision=fp16", *CLIPPED]),
    "swin fp32": (swin_trainer, ["training.precision=fp32", *CLIPPED]),
    "resnet bf16": (resnet_trainer, ["training.precision=bf16", *CLIPPED]),
    "ssd bf16": (ssd_trainer, ["training.precision=bf16", *CLIPPED]),
    "diffusion bf16": (diffusion_trainer, ["training.precision=bf16", *CLIPPED]),
}


def waits(findings: Findings) -> None:
    """Steps of each model with torch's warnings of synchronising operations counted; none is expected."""
    for name, (build, overrides) in CASES.items():
        with findings.part(name):
            trainer = build(findings, *overrides)
            batches = trainer.batches()
            for _ in range(WARM_UP):
                trainer.train_step(batches)
            with synchronisations(findings.device) as places:
                for _ in range(STEPS):
                    trainer.train_step(batches)
            trainer.settle()
            findings.figure(name, sum(places.values()) / STEPS)
            where = ", ".join(f"{place} ({count}x)" for place, count in places.most_common(5))
            findings.check(not places, f"{name}: the host waits in {STEPS} steps at {where}")


@contextlib.contextmanager
def synchronisations(device: str) -> Iterator[Counter[str]]:
    """Counts what torch warns of as synchronising, by file and line; of a CPU nothing."""
    places: Counter[str] = Counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("default")
    for warning in caught:
        if "called a synchronizing" in str(warning.message):
            places[f"{warning.filename}:{warning.lineno}"] += 1
