"""A trained classifier, built from its checkpoint alone: no data of the training need be there."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from classification.classifier import Classifier
from classification.config import ClassificationConfig
from classification.metrics.measure import measure
from classification.metrics.predictions import Predictions
from classification.metrics.thresholds import thresholds_in_use
from classification.model.build import build_model
from classification.report.multi_label import write_multilabel_report
from classification.report.parts import Report
from classification.report.single_label import calibrated, write_report
from engine.datasets.dataset import open_images, prepare_on_all, preprocessing_of, split_made
from engine.datasets.labelled import LabelledImages, digests
from engine.devices.memory_layout import uses_channels_last
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.exported.deployed import DeployedModel
from engine.images.preprocessing import Preprocessing
from engine.images.reading import worker_settings
from engine.images.transforms import EvalTransform
from engine.model.stages import classifier_paths
from engine.run_folder.used_config import used_config
from engine.task.experiment import Experiment
from engine.task.inference import Measured

log = logging.getLogger(__name__)

OTHER_DATA = ("data.root=", "data.csv=", "data.val_fraction=", "data.split_seed=")
"""Changes by which somebody asks for other images than the run's own."""


@dataclass(frozen=True)
class ClassAnswer:
    """What a classifier says of an image."""

    classes: tuple[str, ...]
    """The most probable class; with several labels an image, those from their thresholds on."""
    probabilities: dict[str, float]
    """Of every class, the most probable first."""


class ImageClassifier:
    """What asks a classifier, wherever it runs."""

    classes: list[str]
    multi_label: bool
    thresholds: NDArray[np.float64] = np.empty(0)
    """With several labels an image: probability of each class, (C,), from which on it is said."""

    def probabilities(self, images: Tensor) -> Tensor:
        """Returns (B, C) float64 of uint8 images (B, 3, H, W)."""
        raise NotImplementedError

    def answers(self, images: Tensor, sizes: Tensor) -> list[ClassAnswer]:
        """See :class:`engine.task.inference.ImageInference`."""
        found = []
        for row in self.probabilities(images).cpu().numpy():
            order = np.argsort(-row, kind="stable")
            said = np.flatnonzero(row >= self.thresholds) if self.multi_label else order[:1]
            probabilities = {self.classes[c]: float(row[c]) for c in order}
            found.append(ClassAnswer(tuple(self.classes[c] for c in said), probabilities))
        return found


class DeployedClassifier(ImageClassifier):
    """An exported classifier."""

    def __init__(self, deployed: DeployedModel) -> None:
        self._deployed, description = deployed, deployed.description
        self.model, self.transform, self.inputs = deployed.model, deployed.transform, deployed.inputs
        self.classes, self.multi_label = description["classes"], description["multi_label"]
        if self.multi_label:
            self.thresholds = np.array(description["thresholds"])

    def probabilities(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self._deployed(images)["probabilities"]).double()


class ClassificationInference(ImageClassifier):
    """See :class:`engine.task.inference.ClassifierInference`."""

    def __init__(self, experiment: Experiment[ClassificationConfig], ranks: Ranks) -> None:
        config, metadata = experiment.config, experiment.saved["metadata"]
        self._experiment, self.config = experiment, config
        self.classes = metadata["classes"]
        preprocessing = used_preprocessing(experiment)
        size = preprocessing.size
        if config.model.timm_name is None:  # our Swins take images of any size, with the windows of the trained one
            trained_at = metadata["preprocessing"]
            size = (trained_at["height"], trained_at["width"])
        model = build_model(config.model, config.finetune, len(self.classes), size)
        experiment.load_into(model)
        self.model = model.to(ranks.device)
        self.transform = EvalTransform(preprocessing)
        self.classifier = Classifier(
            preprocessing,
            len(self.classes),
            ranks.device,
            multi_label=metadata["multi_label"],
            tta=config.evaluation.tta,
            channels_last=uses_channels_last(config.training.channels_last, model),
        )
        self.multi_label = metadata["multi_label"]
        self.findings: dict[str, Any] = experiment.saved["run"]["findings"]
        if self.multi_label:
            self.thresholds = thresholds_in_use(config.evaluation.thresholds, self.findings, len(self.classes))

    def inputs(self, images: Tensor) -> Tensor:
        return self.classifier.inputs(images)

    def probabilities(self, images: Tensor) -> Tensor:
        images = images.to(self.classifier.device, non_blocking=True)
        logits = self.classifier.logits(self.model, images).double()
        return logits.sigmoid() if self.multi_label else logits.softmax(1)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what the last layer is given of uint8 images (B, 3, H, W): (B, F) float32; and :meth:`probabilities`.

        Of test-time augmentation the features are those of the images as they are.

        Raises:
            UserError: the model does not say which its last layer is.
        """
        paths, given = classifier_paths(self.model), list[Tensor]()
        if not paths:
            kind = type(self.model).__name__
            raise UserError(f"{kind} does not say which its last layer is (it has no get_classifier): no features")
        last = self.model.get_submodule(paths[0])
        hook = last.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
        try:
            probabilities = self.probabilities(images)
        finally:
            hook.remove()
        return given[0].flatten(1).float(), probabilities

    def evaluate(self, split: str, ranks: Ranks) -> Measured:
        config = self.config
        prepare_on_all(config.data, ranks)
        images = ranks.from_main(partial(open_images, config.data, split, self.classes))
        self._check_same_classes(images)
        if split == "val" and ranks.is_main:
            _warn_of_changed_data(self._experiment, images)
        own = ranks.is_main and self._experiment.elsewhere and _are_the_runs(self._experiment, split, images)
        workers = worker_settings(config.data, ranks)
        predictions = self.classifier.predict(self.model, images, config.evaluation.batch_size, workers, ranks)
        ranks.heartbeat.at("measure")
        values = measure(predictions, config.evaluation.thresholds, self.findings)
        if isinstance(predictions, Predictions):
            values["ece"] = calibrated(predictions, config.evaluation.calibration_bins).error
        train_counts = np.array(self._experiment.saved["metadata"]["train_counts"])

        def write(folder: Path, title: str) -> None:
            report = Report(folder, title, images, train_counts, config.evaluation, self._experiment.folder.metrics)
            if isinstance(predictions, Predictions):
                write_report(report, values, predictions)
            else:
                write_multilabel_report(report, values, predictions, self.thresholds)

        return Measured(values, write, own)

    def _check_same_classes(self, images: LabelledImages) -> None:
        checkpoint = self._experiment.checkpoint
        if images.classes != self.classes:
            raise UserError(
                f"data: {checkpoint} was trained on other classes: {', '.join(self.classes[:10])} there, "
                f"{', '.join(images.classes[:10])} here"
            )
        if images.multi_label != self.multi_label:
            several, one = "several labels an image", "one label an image"
            there, here = (several, one) if self.multi_label else (one, several)
            raise UserError(f"data: {checkpoint} was trained on {there}, but there is {here} here")


def used_preprocessing(experiment: Experiment[ClassificationConfig]) -> Preprocessing:
    """Returns what the run's own evaluations did to images, as its checkpoint says, with the user's changes."""
    run, _ = used_config(experiment.folder.path, ClassificationConfig)
    before, now = (
        asdict(preprocessing_of(config.data, config.model.published_name)) for config in (run, experiment.config)
    )
    kept = {**before, **experiment.saved["metadata"]["preprocessing"]}
    changed: dict[str, Any] = {key: value for key, value in now.items() if value != before[key]}
    return replace(Preprocessing(**kept), **changed)


def _are_the_runs(experiment: Experiment[ClassificationConfig], split: str, images: LabelledImages) -> bool:
    known: dict[str, str] = experiment.saved["metadata"].get("digest_of_images", {})  # older ones lack it
    return split in known and digests(images)[1] == known[split]


def _warn_of_changed_data(experiment: Experiment[ClassificationConfig], val: LabelledImages) -> None:
    """Warns of other images than there were in training; where val is a part of train, of train's as well."""
    if any(change.startswith(OTHER_DATA) for change in experiment.changes):
        return
    data, metadata = experiment.config.data, experiment.saved["metadata"]
    then, names = metadata["images"], metadata["digest_of_image_names"]
    now = {"val": val, "train": open_images(data, "train")} if split_made(data) else {"val": val}
    for split, images in now.items():
        mixed = ": images that the model was trained on may be in val now" if "train" in now else ""
        if len(images) != then[split]:
            log.warning("data: %s has %d images, but had %d in training%s", split, len(images), then[split], mixed)
        elif digests(images)[0] != names[split]:
            log.warning("data: %s has as many images as in training, but of other names%s", split, mixed)
