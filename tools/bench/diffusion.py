"""Training steps and sampling of a Swin U-Net beside diffusers' UNet2D of about as many parameters, and a bare loop.

`by hand` is the least of training scripts around our network: what it is slower or faster than the trainer is what the
engine costs. The peer is trained by such a loop and sampled as diffusers' own pipelines do. All see the same batches.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion.config import DiffusionConfig
from diffusion.samplers.request import Request
from diffusion.spec import SPEC
from diffusion.task import DiffusionTask
from engine.config.load import load_config
from engine.data.device_prefetch import DeviceBatches
from engine.errors import UserError
from engine.training.trainer import Trainer
from tools.bench.step import build, by_trainer
from tools.bench.timing import Table, image_rate, interleaved

RECIPE = Path(__file__).resolve().parents[2] / "configs" / "diffusion" / "quickstart.yaml"
PEER, BY_HAND, OURS = "diffusers UNet2D", "ours, by hand", "ours"
SIDE, BATCH, STEPS = 32, 32, 20
"""Pixels, images of a batch, and steps of sampling."""
WIDTHS = (48, 96, 128)
"""Channels of the peer, with two layers a block and attention on the two smaller maps: as many parameters."""
SMALL = (16, 16, 16)


def run(quick: bool = False) -> Table:
    """Runs the benchmark; ``quick``: tiny networks, one round of one step."""
    batch, steps, rounds = (2, 1, 1) if quick else (BATCH, 4, 9)
    widths = SMALL if quick else WIDTHS
    work: dict[tuple[str, str], Callable[[], float]] = {}
    for precision in ("fp32",) if quick else ("fp32", "bf16"):
        config = configured(batch, precision, quick)
        row = f"training step, {SIDE} x {SIDE}, batch {batch}, {precision}"
        trainer, bare, theirs = build(SPEC, config), build(SPEC, config), build(SPEC, config)
        once = trainer.batches().next()

        def repeated(device: torch.device, once: Any = once) -> DeviceBatches:
            return DeviceBatches(itertools.repeat(once), device)

        network = peer(widths).to(theirs.ranks.device)
        work[row, PEER] = by_hand(theirs, network, repeated(theirs.ranks.device), steps)
        work[row, BY_HAND] = by_hand(bare, bare.task.model, repeated(bare.ranks.device), steps)
        work[row, OURS] = by_trainer(trainer, steps, repeated(trainer.ranks.device))
        row = f"sampling, {STEPS} steps of DDIM, {SIDE} x {SIDE}, batch {batch}, {precision}"
        work[row, PEER] = sampled_by_diffusers(theirs, network, batch)
        work[row, OURS] = sampled(trainer, batch)
    table = Table("diffusion", title(widths, config), "images/s", interleaved(work, rounds))
    for row, cells in table.medians().items():
        others = {name: cells[name] for name in (PEER, BY_HAND) if name in cells}
        table.ratios[f"{row}: ours / other"] = {name: cells[OURS] / rate for name, rate in others.items()}
    return table


def title(widths: tuple[int, ...], config: DiffusionConfig) -> str:
    """Returns the table's title, which says how large either network is."""
    ours = build(SPEC, config).task.model
    counts = [sum(p.numel() for p in network.parameters()) / 1e6 for network in (ours, peer(widths))]
    return f"Diffusion, {counts[0]:.1f} M parameters beside {counts[1]:.1f} M"


def configured(batch: int, precision: str, quick: bool) -> DiffusionConfig:
    """Returns the quickstart's configuration on images of this benchmark's size; ``quick``: with a tiny network."""
    model = "{name: swin_unet, embed_dim: 16, depths: [1, 1], num_heads: [2, 2]}" if quick else "{name: swin_unet_tiny}"
    overrides = [
        f"model={model}",
        f"data={{source: digits, image_size: {SIDE}, channels: 3, workers: 0}}",
        f"diffusion.sampling={{sampler: ddim, steps: {STEPS}, block: {batch}}}",
        f"training.global_batch_size={batch}",
        f"training.precision={precision}",
        "training.steps=1000000",
    ]
    return load_config(DiffusionConfig, RECIPE, overrides)


def peer(widths: tuple[int, ...]) -> nn.Module:
    """Builds diffusers' network, told ten classes and none.

    Raises:
        UserError: diffusers is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import diffusers
    except ImportError:
        raise UserError("tools.bench diffusion compares with diffusers; install it: pip install diffusers") from None
    build: Any = diffusers.UNet2DModel  # which has no types where it is not installed
    network: nn.Module = build(
        sample_size=SIDE,
        layers_per_block=2,
        block_out_channels=widths,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=16,
        attention_head_dim=min(32, *widths),
        num_class_embeds=11,
    )
    return network


def as_network(network: nn.Module) -> Callable[..., Tensor]:
    """Returns what our process calls: ours as it is; of diffusers' the answer, given times of 0 to 1000."""
    if type(network).__module__.startswith("diffusion."):
        return network
    return lambda x, angle, labels: network(x, angle * 1000, labels).sample


def by_hand(trainer: Trainer, network: nn.Module, batches: DeviceBatches, steps: int) -> Callable[[], float]:
    """Measures images a second of a bare loop with the trainer's optimizer and average of the weights."""
    task, config = trainer.task, trainer.learner
    assert isinstance(task, DiffusionTask)
    process, precision, called = task.generator.process, config.precision, as_network(network.train())
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, (0.9, 0.99), weight_decay=0.0, fused=True)
    average = [parameter.detach().clone() for parameter in network.parameters()]

    def step() -> None:
        batch = batches.next().data
        labels = batch["label"].masked_fill(batch["drop"] < 0.1, 10)
        images = batch["image"].float() / 127.5 - 1
        with precision.autocast():
            loss = process.losses(called, images, labels, batch["noise"], batch["time"]).loss.mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        torch._foreach_lerp_(average, [*network.parameters()], 1e-3)

    return image_rate(step, trainer.layout.global_batch_size, trainer.ranks.device, steps)


def sampled(trainer: Trainer, count: int) -> Callable[[], float]:
    """Measures images a second of our sampling, from noise to 8-bit images."""
    task = trainer.task
    assert isinstance(task, DiffusionTask)
    request, config = Request(count, 0, tuple(range(10))), task.config.diffusion.sampling

    def sample() -> None:
        task.model.eval()
        with torch.inference_mode(), trainer.learner.precision.autocast():
            task.generator.sample(task.model, request, range(count), config)
        task.model.train()

    return image_rate(sample, count, trainer.ranks.device)


def sampled_by_diffusers(trainer: Trainer, network: nn.Module, count: int) -> Callable[[], float]:
    """Measures images a second of diffusers' scheduler around its network."""
    import diffusers

    build: Any = diffusers.DDIMScheduler
    scheduler = build(prediction_type="v_prediction", timestep_spacing="trailing")
    labels = torch.arange(count, device=trainer.ranks.device) % 10

    def sample() -> None:
        network.eval()
        scheduler.set_timesteps(STEPS)
        x = torch.randn(count, 3, SIDE, SIDE).to(trainer.ranks.device)
        with torch.inference_mode(), trainer.learner.precision.autocast():
            for time in scheduler.timesteps:
                x = scheduler.step(network(x, time, labels).sample, time, x).prev_sample
        ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()
        network.train()

    return image_rate(sample, count, trainer.ranks.device)
