"""A trained generator, built from its checkpoint alone: no data of the training need be there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from diffusion.config import DiffusionConfig
from diffusion.data.open import open_split
from diffusion.generator import Generator, gathered, sample_share
from diffusion.metrics.inception import find_inception
from diffusion.metrics.judge import digest_of_judge
from diffusion.metrics.measure import Found
from diffusion.metrics.names import JUDGE
from diffusion.report.grids import COLUMNS, array_of, rows_by_class, sample_grid
from diffusion.report.report import write_report
from diffusion.samplers.request import Request
from diffusion.validation import compare, open_space, reference_of, share_of, validate
from engine.config.load import differences, is_below
from engine.config.run import RunConfig
from engine.datasets.dataset import prepare_on_all
from engine.datasets.labelled import LabelledImages, digests
from engine.devices.precision import resolve_precision
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.task.experiment import Experiment
from engine.task.inference import Measured, inference_mode

LEARNT = ("model", "diffusion", "data.image_size", "data.channels")
"""Settings that are the trained model's, so that no other fit it: but for `diffusion.sampling`."""
MEASURED = 1000
"""Samples of an evaluation, unless `evaluation.samples` says how many."""
SHOWN = 100
"""Of them in its report."""


class DiffusionInference:
    """See :class:`engine.task.inference.Inference`."""

    def __init__(self, experiment: Experiment[DiffusionConfig], ranks: Ranks) -> None:
        self._experiment, self.config = experiment, experiment.config
        _require_same_process(experiment)
        self.classes: list[str] = experiment.saved["metadata"]["classes"]
        self.generator = Generator(experiment.config, self.classes, ranks)
        self.model = self.generator.model
        experiment.load_into(self.model)

    def request(self, count: int, seed: int, class_ids: Sequence[int] | None = None) -> Request:
        """Returns a request of images, in turn of the classes named; None: of all.

        Raises:
            UserError: there is no such class.
        """
        known = range(len(self.classes))
        if wrong := [number for number in class_ids or () if number not in known]:
            there = f"there are 0 to {len(known) - 1}" if known else "the model was trained without classes"
            raise UserError(f"--class-ids: {wrong[0]} is no class of {self._experiment.checkpoint}; {there}")
        return Request(count, seed, tuple(known if class_ids is None else class_ids))

    def samples(self, request: Request, ranks: Ranks) -> tuple[Tensor, Tensor]:
        """Samples this rank's share of a request: numbers (n,) and uint8 (n, C, H, W)."""
        return sample_share(self.generator, self.model, request, self.config.diffusion.sampling, ranks)

    def evaluate(self, split: str, ranks: Ranks) -> Measured:
        config = self.config
        prepare_on_all(config.data, ranks)
        images = ranks.from_main(partial(open_split, config.data, split, self.classes or None))
        if self.classes and images.classes != self.classes:
            raise UserError(
                f"data: {self._experiment.checkpoint} was trained on other classes: {', '.join(self.classes[:10])} "
                f"there, {', '.join(images.classes[:10])} here"
            )
        own = ranks.is_main and self._experiment.elsewhere and self._are_the_runs_own(split, images)
        losses = validate(self.generator, self.model, images, config, ranks)
        found = Found(losses.metrics(), {"held_out_images": len(images)})
        count = MEASURED if config.evaluation.samples is None else config.evaluation.samples
        request = self.request(count or SHOWN, config.experiment.seed)
        space = open_space(config, self.classes, ranks) if count else None
        samples = share_of(self.generator, self.model, request, config, ranks)
        train: LabelledImages | None = None
        if space is not None:
            if config.evaluation.nearest_train:
                train = ranks.from_main(partial(open_split, config.data, "train", self.classes or None))
            reference = reference_of(config, split, images, self.classes, ranks)
            found = found | compare(samples, *reference, config, space, ranks, train, find_inception(ranks))
        first = samples.indices < SHOWN
        shown = gathered(samples.indices[first], samples.images[first], ranks)

        def write(folder: Path, title: str) -> None:
            labels = torch.tensor([request.label(image) for image in range(len(shown))])
            few = 0 < len(self.classes) <= COLUMNS
            rows = rows_by_class(shown, labels if few else None, self.classes, COLUMNS)
            drawn = {"loss": losses.by_time()}
            write_report(folder, title, found, sample_grid(rows), train, drawn)

        return Measured(found.metrics, write, own)

    def _are_the_runs_own(self, split: str, images: LabelledImages) -> bool:
        """Returns whether images and judge are those of the run, wherever they lie now."""
        known, judge = self._experiment.saved["metadata"], self.config.evaluation.judge
        if any(change.startswith(f"{JUDGE}=") for change in self._experiment.changes) and (
            judge is None or digest_of_judge(judge, JUDGE) != known.get("digest_of_judge")
        ):
            return False
        return bool(digests(images)[1] == known["digest_of_images"].get(split))


def _require_same_process(experiment: Experiment[DiffusionConfig]) -> None:
    """Checks that nothing contradicts what the checkpoint was trained with. Raises a UserError that names the key."""
    trained: dict[str, Any] = experiment.saved["config"]
    for key, then, now in differences(trained, experiment.config.model_dump(mode="json")):
        if is_below(key, LEARNT) and not is_below(key, ("diffusion.sampling",)):
            raise UserError(
                f"{key}: {now} contradicts {experiment.checkpoint}, which was trained with {then}; remove it"
            )


class LoadedSampler:
    """A trained generator in this process alone."""

    def __init__(self, inference: DiffusionInference, config: RunConfig, device: torch.device) -> None:
        self.inference = inference
        self._ranks = Ranks(Layout(), device)
        self._precision = resolve_precision(config.training.precision, device)

    def __call__(self, num_images: int, class_ids: Sequence[int] | None = None, seed: int = 0) -> list[Image.Image]:
        """Returns ``num_images`` images, those that `diffusion.sample` writes for the same classes and seed.

        Raises:
            UserError: there is no such class.
        """
        request = self.inference.request(num_images, seed, class_ids)
        with inference_mode(self.inference.model, self._precision):
            _, images = self.inference.samples(request, self._ranks)
        return [Image.fromarray(array_of(image)) for image in images]
