"""The training loop beside a bare one written by hand, with the same model, data, optimizer and precision.

The bare loop does what the least of training scripts does: forward pass, loss, backward pass, optimizer step. Whatever
the suite adds (one number for all ranks, norms, skipped steps, records) is what the difference measures.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from classification.config import ClassificationConfig
from classification.spec import SPEC
from classification.task import ClassificationTask
from engine.commands.build import build_trainer
from engine.config.load import load_config
from engine.config.run import DistributedConfig, RunConfig
from engine.data.device_prefetch import DeviceBatches
from engine.devices.memory_layout import uses_channels_last
from engine.distributed.connect import choose_device
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.task.spec import TaskSpec
from engine.training.trainer import Trainer
from tools.bench.timing import Table, image_rate, interleaved

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "digits Swin, batch 32": (["training.global_batch_size=32"], 20),
    "EfficientNet-Lite0 at 224, batch 16": (
        ["model={name: timm/tf_efficientnet_lite0}", "data.image_size=224", "training.global_batch_size=16"],
        5,
    ),
    "Swin-T at 224, batch 8": (["model={name: swin_tiny}", "data.image_size=224", "training.global_batch_size=8"], 2),
}
"""Settings on top of the quickstart's, and the steps of one sample."""


def run(quick: bool = False) -> Table:
    """Runs the benchmark; ``quick``: the smallest case, one round of two steps."""
    work: dict[tuple[str, str], Callable[[], float]] = {}
    for case, (overrides, steps) in [*CASES.items()][: 1 if quick else None]:
        for precision in ("fp32",) if quick else ("fp32", "bf16"):
            row = f"{case}, {precision}"
            config = configured([*overrides, f"training.precision={precision}", "training.steps=1000000"])
            work[row, "by hand"] = by_hand(build(SPEC, config), 2 if quick else steps)
            work[row, "trainer"] = by_trainer(build(SPEC, config), 2 if quick else steps)
    table = Table("step", "Training loop", "images/s", interleaved(work, 1 if quick else 7))
    table.compare_columns("trainer", "by hand", shown="trainer")
    return table


def configured(overrides: list[str]) -> ClassificationConfig:
    """Returns the quickstart's configuration with other settings."""
    return load_config(ClassificationConfig, ROOT / "configs" / "classification" / "quickstart.yaml", overrides)


def build(spec: TaskSpec, config: RunConfig) -> Trainer:
    """Builds a trainer in a process of its own."""
    return build_trainer(spec, config, Ranks(Layout(), choose_device(DistributedConfig(), Layout())))


def by_trainer(trainer: Trainer, steps: int, batches: DeviceBatches | None = None) -> Callable[[], float]:
    """Measures images a second of ``steps`` steps of the suite's loop, over ``batches`` or the trainer's own."""
    batches = batches or trainer.batches()
    images, device = trainer.layout.global_batch_size, trainer.ranks.device
    return image_rate(lambda: trainer.train_step(batches), images, device, steps)


def by_hand(trainer: Trainer, steps: int, batches: DeviceBatches | None = None) -> Callable[[], float]:
    """Measures images a second of a bare loop over the same batches. It uses the trainer's parts, not its code."""
    task, device, precision = trainer.task, trainer.ranks.device, trainer.learner.precision
    assert isinstance(task, ClassificationTask)
    model = task.model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
    layout = torch.channels_last if uses_channels_last("auto", task.model) else torch.contiguous_format
    batches = batches or trainer.batches()

    def step() -> None:
        batch = batches.next().data
        images = ((batch["image"].float() / 255 - mean) / std).contiguous(memory_format=layout)
        with precision.autocast():
            loss = F.cross_entropy(model(images).float(), batch["label"], label_smoothing=0.1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return image_rate(step, trainer.layout.global_batch_size, device, steps)
