"""A network with what it takes to use it: from 8-bit images to losses, and from noise to 8-bit images."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from tqdm import tqdm

from diffusion.config import DiffusionConfig
from diffusion.model.build import build_network
from diffusion.model.swin_unet import SwinUNet
from diffusion.process.build import build_process
from diffusion.process.draws import with_dropped
from diffusion.process.process import Denoise, Losses
from diffusion.samplers.guidance import clipped, guided, thresholded
from diffusion.samplers.names import bound_sampler
from diffusion.samplers.noise import first_noise, step_noise
from diffusion.samplers.request import Request
from diffusion.samplers.sections import SamplingConfig
from diffusion.samplers.spacing import spaced, start
from engine.config.training import FinetuneConfig
from engine.distributed.ranks import Ranks
from engine.model.pretrained import build_alike

log = logging.getLogger(__name__)

TELL_SECONDS = 30.0
"""Between two words on how far a request is."""


class Generator:
    """The configured network and process on the ranks' device.

    Its methods are given the network, which may be this one wrapped for training, or its moving average.

    Args:
        config: The run's.
        classes: Those that the network is told, in the order of their numbers; none: it is told no class.
        ranks: Where it lies.
    """

    def __init__(self, config: DiffusionConfig, classes: Sequence[str], ranks: Ranks) -> None:
        self.shape = (config.data.channels, *config.data.size)
        self.num_classes = len(classes)
        self.process = build_process(config.diffusion, config.data.size)
        self._label_dropout, self._device = config.diffusion.label_dropout, ranks.device

        def build(finetune: FinetuneConfig) -> SwinUNet:
            return build_network(config.model, finetune, config.data.size, config.data.channels, classes)

        self.model: nn.Module = build_alike(build, config.finetune, ranks).to(ranks.device)

    def losses(self, model: nn.Module, batch: dict[str, Tensor], training: bool) -> Losses:
        """Computes the errors of ``model`` on a batch of :class:`diffusion.data.reader.NoisyReader` on its device.

        ``training``: some classes are not told.
        """
        labels = batch["label"] if self.num_classes else None
        if labels is not None and training:
            labels = with_dropped(labels, batch["drop"], self._label_dropout, self.num_classes)
        images = batch["image"].float() / 127.5 - 1
        return self.process.losses(model, images, labels, batch["noise"], batch["time"])

    def sample(
        self,
        model: nn.Module,
        request: Request,
        block: range,
        config: SamplingConfig,
        tick: Callable[[], None] = lambda: None,
    ) -> Tensor:
        """Samples the images of a block: uint8 (B, C, H, W) on the CPU.

        Args:
            model: The network, in evaluation mode.
            request: What is asked for.
            block: Numbers of the images, see :meth:`diffusion.samplers.request.Request.blocks`.
            config: How to sample.
            tick: Is called at each step.
        """
        levels = spaced(self.process.schedule, config.steps, config.spacing)
        noise = step_noise(request.seed, block, self.shape, self._device)
        sampler = bound_sampler(config.sampler, config.eta, noise)
        x = start(first_noise(request.seed, block, self.shape).to(self._device), levels)
        images = sampler(self._denoiser(model, request, block, config), x, levels, lambda progress: tick())
        return as_bytes(images)

    def _denoiser(self, model: nn.Module, request: Request, block: range, config: SamplingConfig) -> Denoise:
        labels = torch.tensor([request.label(image) for image in block], device=self._device)
        told, untold = (labels, torch.full_like(labels, self.num_classes)) if self.num_classes else (None, None)
        with_class, without = self.process.denoiser(model, told), self.process.denoiser(model, untold)
        interval = {} if config.guidance_interval is None else {"interval": config.guidance_interval}
        denoise = guided(with_class, without, config.guidance, **interval)
        if config.clip == "dynamic":
            return thresholded(denoise, config.clip_share, float("inf"))
        return clipped(denoise) if config.clip == "static" else denoise


def as_bytes(images: Tensor) -> Tensor:
    """Returns images in [-1, 1], which may go a little beyond, as uint8 on the CPU."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()


def telling(tick: Callable[[], None], steps: int, clock: Callable[[], float] = time.monotonic) -> Callable[[], None]:
    """Returns ``tick`` for so many steps, which says twice a minute how many of them are done."""
    done, begin = 0, clock()
    said = begin

    def ticked() -> None:
        nonlocal done, said
        tick()
        done, now = done + 1, clock()
        if now - said >= TELL_SECONDS:
            left = tqdm.format_interval((now - begin) / done * (steps - done))
            log.info("sampling: %d of %d steps, eta %s", done, steps, left)
            said = now

    return ticked


def sample_share(
    generator: Generator, model: nn.Module, request: Request, config: SamplingConfig, ranks: Ranks
) -> tuple[Tensor, Tensor]:
    """Samples this rank's share of a request: numbers (n,) and images, uint8 (n, C, H, W), on the CPU."""
    ranks.heartbeat.at("evaluate")
    empty = torch.empty(0, *generator.shape, dtype=torch.uint8)
    blocks = request.blocks(config.block, ranks.rank, ranks.world_size)
    tick = telling(ranks.heartbeat.tick, len(blocks) * config.steps)
    images = torch.cat([empty, *(generator.sample(model, request, block, config, tick) for block in blocks)])
    numbers = torch.tensor([image for block in blocks for image in block], dtype=torch.int64)
    asked = numbers < request.count
    return numbers[asked], images[asked]


def sample_all(
    generator: Generator, model: nn.Module, request: Request, config: SamplingConfig, ranks: Ranks
) -> Tensor:
    """Samples a request together with all ranks: uint8 (N, C, H, W) on the CPU of each, the same for any number."""
    return gathered(*sample_share(generator, model, request, config, ranks), ranks)


def gathered(numbers: Tensor, images: Tensor, ranks: Ranks) -> Tensor:
    """Returns images (n, C, H, W) of all ranks in the order of their numbers (n,), on each of them."""
    ranks.heartbeat.at("gather")
    return ranks.gather_rows(images)[ranks.gather_rows(numbers).argsort()]
