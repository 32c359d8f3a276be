"""Classification as a task of the training loop: images, model, loss and metrics."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from classification.augmentation.mixing import MixingPlan, apply_mixing, as_rows, plan_mixing
from classification.augmentation.sections import AugmentationConfig
from classification.augmentation.transforms import TrainTransform
from classification.classifier import Classifier
from classification.config import ClassificationConfig
from classification.losses.build import build_training_loss, warn_of_balancing_twice
from classification.metrics.measure import check_top5, find, measure
from classification.metrics.names import measured
from classification.metrics.predictions import AnyPredictions, Predictions
from classification.metrics.thresholds import thresholds_in_use
from classification.model.build import build_model
from classification.report.curves import board_curves
from classification.report.multi_label import multilabel_board_images
from classification.report.single_label import board_images
from engine.data.batch_plan import Draw
from engine.data.workers import stacked
from engine.datasets.dataset import ImageReader, described, open_images, prepare_on_all, preprocessing_of, split_made
from engine.datasets.labelled import LabelledImages, class_counts, digests, odd_labels
from engine.datasets.preflight import faults_of, warn_of_likenesses
from engine.datasets.sampling import build_order
from engine.datasets.sections import DataConfig
from engine.devices.memory_layout import laid_out, uses_channels_last
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.images.image_io import ImageArray
from engine.images.preprocessing import Preprocessing
from engine.images.reading import worker_settings
from engine.model.pretrained import build_alike
from engine.plots.contact_sheet import SHOWN, contact_sheet
from engine.task.task import Evaluated

log = logging.getLogger(__name__)

SPLITS = ("train", "val")
"""What a run uses, and a checkpoint describes."""


class ClassificationTask:
    """See :class:`engine.task.task.Task`."""

    name = "classification"

    def __init__(self, config: ClassificationConfig, ranks: Ranks) -> None:
        data, seed = config.data, config.experiment.seed
        prepare_on_all(data, ranks)
        self._config = config
        self._preprocessing = preprocessing_of(data, config.model.published_name)
        self._opened, self._digests = ranks.from_main(partial(_first_opened, data))
        images, held_out = (self._opened[split] for split in SPLITS)
        self.classes = images.classes
        self._train_counts = class_counts(images)
        self._multi_label = images.multi_label
        check_top5(config.evaluation.metric, len(self.classes))
        self.metrics = measured(self._multi_label, config.evaluation.thresholds)
        self._loss = build_training_loss(config.loss, images, ranks.device)
        warn_of_balancing_twice(config.loss, data)
        size = self._preprocessing.size
        build = partial(build_model, config.model, num_classes=len(self.classes), image_size=size, classes=self.classes)
        model = build_alike(build, config.finetune, ranks)
        self.model: nn.Module = model.to(ranks.device)
        self._classifier = Classifier(
            self._preprocessing,
            len(self.classes),
            ranks.device,
            multi_label=self._multi_label,
            tta=config.evaluation.tta,
            channels_last=uses_channels_last(config.training.channels_last, model),
        )
        transform = TrainTransform(self._preprocessing, config.augmentation)
        self.train_data = ImageReader(images, transform, seed)
        self.train_order = build_order(data, images, seed)
        log.info("data: %s", described(data, images, held_out, self.train_order.num_samples))
        questions = [*config.augmentation.questions(), *odd_labels(images, held_out)]
        for oddity in questions if ranks.is_main else ():
            log.warning("%s", oddity)
        self.drop_last = data.drop_last
        self.slot_multiple = 2 if config.augmentation.mixes else 1
        collate = TrainCollate(config.augmentation, seed, config.training.global_batch_size, self._preprocessing)
        self.workers = worker_settings(data, ranks, collate)

    def training_step(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns the mean loss over a micro-batch, which :class:`TrainCollate` has made."""
        images, targets = self._mixed(self._classifier.normalized(batch["image"]), batch)
        inputs = laid_out(images, self._classifier.channels_last)
        return {"loss": self._loss(model(inputs), targets).mean()}

    def evaluate(self, model: nn.Module, split: str, ranks: Ranks) -> Evaluated:
        predictions, thresholds = self.predict(model, split, ranks), self._config.evaluation.thresholds
        ranks.heartbeat.at("measure")
        findings = find(predictions, thresholds) if split == "val" else {}
        draw = partial(self._draw, predictions, split, findings)
        curves = partial(board_curves, predictions, self.classes)
        return Evaluated(measure(predictions, thresholds, findings), findings, draw, curves=curves)

    def _draw(self, predictions: AnyPredictions, split: str, findings: dict[str, Any]) -> Mapping[str, ImageArray]:
        images, counts = self._opened[split], self._train_counts
        if isinstance(predictions, Predictions):
            return board_images(predictions, images, counts)
        thresholds = thresholds_in_use(self._config.evaluation.thresholds, findings, len(self.classes))
        return multilabel_board_images(predictions, images, thresholds, counts)

    def previews(self) -> Mapping[str, ImageArray]:
        """Draws the first training images as the model sees them, mixed if they are, with their classes."""
        size, order = self._config.training.global_batch_size, self.train_order(0)[:SHOWN]
        draws = [Draw(int(index), 0, position) for position, index in enumerate(order)]
        steps = [draws[first : first + size] for first in range(0, len(draws), size)]
        batches = [
            self.workers.collate([self.workers.sample(self.train_data, draw) for draw in step]) for step in steps
        ]
        mixed = [self._mixed(batch["image"].float(), batch) for batch in batches]
        images, targets = (torch.cat(parts) for parts in zip(*mixed, strict=True))
        return {"train_samples": contact_sheet(images, as_rows(targets, len(self.classes)), self.classes)}

    def example(self) -> tuple[Tensor, ...]:
        return (torch.zeros(1, 3, *self._preprocessing.size, device=self._classifier.device),)

    def predict(self, model: nn.Module, split: str, ranks: Ranks) -> AnyPredictions:
        """Predicts each image of ``split``, the same on every rank. Raises UserError if there is no such split."""
        if split not in self._opened:
            self._opened[split] = ranks.from_main(partial(open_images, self._config.data, split))
        batch_size = self._config.evaluation.batch_size
        return self._classifier.predict(model, self._opened[split], batch_size, self.workers, ranks)

    def metadata(self) -> dict[str, Any]:
        made = split_made(self._config.data)
        return {
            "classes": self.classes,
            "train_counts": self._train_counts.tolist(),
            "images": {split: len(self._opened[split]) for split in SPLITS},
            "digest_of_image_names": {split: names for split, (names, _) in self._digests.items()},
            "digest_of_images": {split: seen for split, (_, seen) in self._digests.items()},
            "multi_label": self._multi_label,
            "preprocessing": asdict(self._preprocessing),
            **({"split": made} if made else {}),
        }

    def _mixed(self, images: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Returns images (B, 3, H, W) and the batch's targets, mixed as :class:`TrainCollate` has planned."""
        if "target_weights" not in batch:
            return images, batch["label"]
        plan = MixingPlan(batch["pixel_weights"], batch["boxes"], batch["target_weights"])
        return apply_mixing(images, batch["label"], len(self.classes), plan)


def _first_opened(data: DataConfig) -> tuple[dict[str, LabelledImages], dict[str, tuple[str, str]]]:
    """Opens train and val, with the digests of each.

    Raises:
        UserError: they are not there, or not as they should be: better known before training than after an epoch.
    """
    opened = {split: open_images(data, split) for split in SPLITS}
    if faults := faults_of(opened["train"], opened["val"], data.max_unreadable):
        raise UserError(faults)
    warn_of_likenesses(opened["train"], opened["val"])
    return opened, {split: digests(images) for split, images in opened.items()}


@dataclass(frozen=True)
class TrainCollate:
    """Makes a micro-batch of samples, with the plan of how its neighbours are mixed, in the worker that read them."""

    augmentation: AugmentationConfig
    seed: int
    global_batch_size: int
    preprocessing: Preprocessing

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = stacked(samples)
        if self.augmentation.mixes:
            epoch, positions = samples[0]["epoch"], [sample["position"] for sample in samples]
            step = positions[0] // self.global_batch_size
            size = self.preprocessing.size
            batch |= vars(plan_mixing(self.augmentation, self.seed, epoch, step, positions, *size))
        return batch
