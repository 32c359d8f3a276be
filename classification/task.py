"""Classification as a task of the training loop: pictures, model, loss and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from classification.config import ClassificationConfig
from classification.datasets import PictureReader, open_pictures, prepare_data
from classification.first_look import broken_pictures
from classification.folders import FolderPictures
from classification.losses import cross_entropy
from classification.measures import find, measure, metric_names
from classification.mixing import MixingPlan, apply_mixing, plan_mixing
from classification.model import build_model
from classification.multilabel_losses import binary_cross_entropy
from classification.predictions import AnyPredictions, gather, gather_multilabel, multilabel_rows, rows
from classification.preprocessing import Preprocessing, resolve_preprocessing
from classification.training_loss import build_training_loss, warn_of_balancing_twice
from classification.transforms import EvalTransform, TrainTransform
from engine.batches import NaturalOrder
from engine.data import EvalLoader
from engine.dist import Ranks
from engine.errors import UserError
from engine.task import Evaluated, Picture
from engine.workers import WorkerSettings, resolve_workers


class ClassificationTask:
    """See :class:`engine.task.Task`."""

    name = "classification"

    def __init__(self, config: ClassificationConfig, ranks: Ranks) -> None:
        data, seed = config.data, config.experiment.seed
        if ranks.layout.local_rank == 0:
            prepare_data(data)
        ranks.barrier()
        self._config = config
        self._device = ranks.device
        self._preprocessing = resolve_preprocessing(data, config.model)
        self._mean, self._std = (
            torch.tensor(values, device=ranks.device).view(3, 1, 1) * 255
            for values in (self._preprocessing.mean, self._preprocessing.std)
        )
        pictures = open_pictures(data, "train")
        # What is wrong with these is better known before training than after an epoch.
        held_out = open_pictures(data, "val")
        if isinstance(held_out, FolderPictures) and (faults := ranks.main_decides(partial(broken_pictures, held_out))):
            raise UserError(faults)
        self.classes = pictures.classes
        self._multi_label = pictures.multi_label
        self.metric = "mAP" if self._multi_label else "top1"
        self.metric_names = metric_names(self._multi_label, config.evaluation.thresholds)
        self._loss = build_training_loss(config.loss, pictures, ranks.device)
        warn_of_balancing_twice(config.loss, data.sampling)
        size = (self._preprocessing.height, self._preprocessing.width)
        self.model: nn.Module = build_model(config.model, config.finetune, len(self.classes), size).to(ranks.device)
        transform = TrainTransform(self._preprocessing, config.augmentation)
        self.train_data = PictureReader(pictures, transform, seed)
        self.train_order = NaturalOrder(len(pictures), seed)
        self.drop_last = data.drop_last
        self.slot_multiple = 2 if config.augmentation.mixes else 1
        self.workers = WorkerSettings(
            workers=resolve_workers(data.workers, ranks.layout),
            prefetch=data.prefetch,
            pin_memory=ranks.device.type == "cuda",
            multiprocessing_context=data.multiprocessing_context,
            collate=TrainCollate(config, self._preprocessing),
        )

    def training_step(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """``batch``: what :class:`TrainCollate` makes. Mean loss over the micro-batch."""
        pictures, targets = self._normalised(batch["image"]), batch["label"]
        if "target_weights" in batch:
            plan = MixingPlan(batch["pixel_weights"], batch["boxes"], batch["target_weights"])
            pictures, targets = apply_mixing(pictures, targets, len(self.classes), plan)
        return {"loss": self._loss(model(self._laid_out(pictures)), targets).mean()}

    def evaluate(self, model: nn.Module, split: str, ranks: Ranks) -> Evaluated:
        predictions, thresholds = self.predict(model, split, ranks)[0], self._config.evaluation.thresholds
        findings = find(predictions, thresholds) if split == "val" else {}
        return Evaluated(measure(predictions, thresholds, findings), findings)

    def previews(self) -> Mapping[str, Picture]:
        return {}

    def predict(self, model: nn.Module, split: str, ranks: Ranks) -> tuple[AnyPredictions, list[str]]:
        """What ``model`` says of each picture of ``split``, and the pictures' names; the same on every rank.

        The loss is plain cross entropy, or with several labels a picture plain binary cross entropy: smoothing, mixing
        and weights belong to training.
        """
        reader = PictureReader(open_pictures(self._config.data, split), EvalTransform(self._preprocessing), 0)
        settings = replace(self.workers, collate=default_collate)
        batch_size = self._config.evaluation.batch_size
        loss, as_rows = (binary_cross_entropy, multilabel_rows) if self._multi_label else (cross_entropy, rows)
        parts: list[Any] = []
        for batch in EvalLoader(reader, len(reader), batch_size, settings, ranks):
            data = {name: tensor.to(self._device, non_blocking=True) for name, tensor in batch.data.items()}
            logits = model(self._laid_out(self._normalised(data["image"]))).float()
            parts.append(as_rows(data["index"], data["label"], logits, loss(logits, data["label"])))
        names = [reader.pictures.name(index) for index in range(len(reader))]
        return (gather_multilabel if self._multi_label else gather)(parts, len(self.classes), ranks), names

    def metadata(self) -> dict[str, Any]:
        return {"classes": self.classes, "multi_label": self._multi_label, "preprocessing": asdict(self._preprocessing)}

    def _normalised(self, pictures: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) as float32, minus the mean and divided by the deviation of each channel."""
        return pictures.float().sub_(self._mean).div_(self._std)

    def _laid_out(self, pictures: Tensor) -> Tensor:
        if self._config.training.channels_last:
            return pictures.contiguous(memory_format=torch.channels_last)
        return pictures


class TrainCollate:
    """Makes a micro-batch of samples, with the plan of how its neighbours are mixed, in the worker that read them."""

    def __init__(self, config: ClassificationConfig, preprocessing: Preprocessing) -> None:
        self._augmentation = config.augmentation
        self._seed = config.experiment.seed
        self._global_batch_size = config.training.global_batch_size
        self._size = (preprocessing.height, preprocessing.width)

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = default_collate(samples)
        if self._augmentation.mixes:
            epoch, positions = samples[0]["epoch"], [sample["position"] for sample in samples]
            step = positions[0] // self._global_batch_size
            batch |= vars(plan_mixing(self._augmentation, self._seed, epoch, step, positions, *self._size))
        return batch
