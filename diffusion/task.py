"""Diffusion as a task of the training loop: noisy images, a Swin U-Net, and samples of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from diffusion.config import DiffusionConfig
from diffusion.data.open import SPLITS, open_first, open_split
from diffusion.data.reader import NoisyReader, PixelTransform, preprocessing_of
from diffusion.generator import Generator, sample_all
from diffusion.metrics.judge import digest_of_judge
from diffusion.metrics.names import JUDGE
from diffusion.preflight import metrics_of
from diffusion.report.grids import COLUMNS, grid
from diffusion.report.progress import write_progress
from diffusion.samplers.request import Request
from diffusion.validation import check_reference, compare, open_space, reference_of, share_of, validate
from engine.data.batch_plan import Draw
from engine.datasets.dataset import described, prepare_on_all, split_made
from engine.datasets.labelled import odd_labels
from engine.datasets.sampling import build_order
from engine.distributed.ranks import Ranks
from engine.images.image_io import ImageArray
from engine.images.reading import worker_settings
from engine.task.task import Evaluated

log = logging.getLogger(__name__)

SHOWN = 30
"""Training images on the sheet that a run begins with."""


class DiffusionTask:
    """See :class:`engine.task.task.Task`."""

    name = "diffusion"
    slot_multiple = 1

    def __init__(self, config: DiffusionConfig, ranks: Ranks) -> None:
        data, seed = config.data, config.experiment.seed
        prepare_on_all(data, ranks)
        self.metrics = metrics_of(config)
        self.config = config
        self._opened, self._digests = ranks.from_main(partial(open_first, data))
        images, held_out = (self._opened[split] for split in SPLITS)
        self.classes = images.classes if config.tells_class else []
        check_reference(config, held_out)
        self.generator = Generator(config, self.classes, ranks)
        self.model: nn.Module = self.generator.model
        self._space = open_space(config, self.classes, ranks) if config.evaluation.samples else None
        judge = config.evaluation.judge if config.evaluation.samples else None
        self._judge = ranks.from_main(partial(digest_of_judge, judge, JUDGE)) if judge is not None else None
        self._preprocessing = preprocessing_of(data)
        transform = PixelTransform(self._preprocessing, data.channels, config.augmentation)
        stratified = config.training.global_batch_size if config.diffusion.times.stratified else None
        self.train_data = NoisyReader(images, transform, seed, self.generator.shape, True, stratified)
        self.train_order = build_order(data, images, seed)
        self.drop_last = data.drop_last
        sample_bytes = 5 * math.prod(self.generator.shape)  # a byte of image and four of noise
        self.workers = replace(worker_settings(data, ranks), sample_bytes=sample_bytes)
        log.info("data: %s", described(data, images, held_out, self.train_order.num_samples))
        for oddity in odd_labels(images, held_out) if self.classes and ranks.is_main else ():
            log.warning("%s", oddity)

    def training_step(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Computes the mean loss over a micro-batch of :class:`diffusion.data.reader.NoisyReader`."""
        return {"loss": self.generator.losses(model, batch, training=True).loss.mean()}

    def evaluate(self, model: nn.Module, split: str, ranks: Ranks) -> Evaluated:
        config = self.config
        if split not in self._opened:
            self._opened[split] = ranks.from_main(partial(open_split, config.data, split))
        images = self._opened[split]
        metrics = validate(self.generator, model, images, config, ranks).metrics()
        if self._space is not None:
            request = Request(config.evaluation.samples or 0, config.experiment.seed, tuple(range(len(self.classes))))
            samples = share_of(self.generator, model, request, config, ranks)
            reference = reference_of(config, split, images, self.classes, ranks)
            metrics |= compare(samples, *reference, config, self._space, ranks).metrics
        if not config.evaluation.grid_rows:
            return Evaluated(metrics)
        columns = min(len(self.classes) or COLUMNS, COLUMNS)
        classes = tuple(range(len(self.classes)))[:columns]
        request = Request(columns * config.evaluation.grid_rows, config.experiment.seed, classes)
        shown = sample_all(self.generator, model, request, config.diffusion.sampling, ranks)
        return Evaluated(metrics, write=partial(write_progress, shown, columns))

    def previews(self) -> Mapping[str, ImageArray]:
        """Draws the first training images as the network is to make them."""
        draws = [Draw(int(index), 0, position) for position, index in enumerate(self.train_order(0)[:SHOWN])]
        samples = [self.workers.sample(self.train_data, draw)["image"] for draw in draws]
        return {"train_samples": grid(torch.stack(samples), COLUMNS)}

    def example(self) -> tuple[Tensor, ...]:
        device = next(self.model.parameters()).device
        labels = (torch.zeros(1, dtype=torch.int64, device=device),) if self.classes else ()
        return torch.zeros(1, *self.generator.shape, device=device), torch.ones(1, device=device), *labels

    def metadata(self) -> dict[str, Any]:
        made = split_made(self.config.data)
        return {
            "classes": self.classes,
            "images": {split: len(self._opened[split]) for split in SPLITS},
            "digest_of_image_names": {split: names for split, (names, _) in self._digests.items()},
            "digest_of_images": {split: seen for split, (_, seen) in self._digests.items()},
            "preprocessing": asdict(self._preprocessing),
            **({"split": made} if made else {}),
            **({"digest_of_judge": self._judge} if self._judge else {}),
        }
