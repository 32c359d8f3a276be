"""A trained classifier, built from its checkpoint alone: no data of the training need be there."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from classification.config import ClassificationConfig
from classification.inference import Inference
from classification.metrics.thresholds import thresholds_in_use
from classification.model import build_model
from engine.commands.experiment import Experiment
from engine.data.workers import WorkerSettings, resolve_workers
from engine.datasets.dataset import preprocessing_of
from engine.devices.kinds import device_kind
from engine.devices.memory_layout import uses_channels_last
from engine.distributed.ranks import Ranks
from engine.images.preprocessing import Preprocessing
from engine.run_folder.used_config import used_config


@dataclass(frozen=True)
class Trained:
    """A model with its weights, on its device, and what one needs to know to use it."""

    model: nn.Module
    classes: list[str]
    inference: Inference
    thresholds: NDArray[np.float64] | None
    """With several labels a picture: probability of each class, (C,), from which on it is said."""
    train_counts: NDArray[np.int64] | None
    """Pictures of each class that the model was trained on, (C,); None where the checkpoint does not say."""


def load_trained(experiment: Experiment[ClassificationConfig], ranks: Ranks) -> Trained:
    """The model of a checkpoint.

    Raises:
        UserError: the weights do not fit the configured model.
    """
    config, metadata = experiment.config, experiment.saved["metadata"]
    classes, multi_label = metadata["classes"], metadata.get("multi_label", False)
    preprocessing = used_preprocessing(experiment)
    size = (preprocessing.height, preprocessing.width)
    if config.model.timm_name is None:  # our Swins take pictures of any size, with the windows of the trained one
        trained_at = metadata["preprocessing"]
        size = (trained_at["height"], trained_at["width"])
    model = build_model(config.model, config.finetune, len(classes), size)
    experiment.load_into(model)
    findings, counts = experiment.saved["run"]["findings"], metadata.get("train_counts")
    setting = config.evaluation.thresholds
    return Trained(
        model.to(ranks.device),
        classes,
        Inference(
            preprocessing,
            len(classes),
            ranks.device,
            multi_label=multi_label,
            tta=config.evaluation.tta,
            channels_last=uses_channels_last(config.training.channels_last, model),
        ),
        thresholds_in_use(setting, findings, len(classes)) if multi_label else None,
        None if counts is None else np.array(counts, np.int64),
    )


def used_preprocessing(experiment: Experiment[ClassificationConfig]) -> Preprocessing:
    """What the run's own evaluations did to pictures, as its checkpoint says, with the user's changes."""
    run, _ = used_config(experiment.folder.path, ClassificationConfig)
    before, now = (asdict(preprocessing_of(config.data, config.model.timm_name)) for config in (run, experiment.config))
    kept = {**before, **experiment.saved["metadata"]["preprocessing"]}
    changed: dict[str, Any] = {key: value for key, value in now.items() if value != before[key]}
    return replace(Preprocessing(**kept), **changed)


def reading_workers(config: ClassificationConfig, ranks: Ranks) -> WorkerSettings:
    """How pictures to be evaluated are read."""
    data = config.data
    return WorkerSettings(
        workers=resolve_workers(data.workers, ranks.layout),
        prefetch=data.prefetch,
        pin_memory=device_kind(ranks.device).pin_memory,
        multiprocessing_context=data.multiprocessing_context,
    )
