"""Trained models as Python functions, in one process and without a process group."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from engine.config.run import RunConfig
from engine.devices.precision import Precision, resolve_precision
from engine.distributed.connect import choose_device
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.exported.deployed import BATCH_SIZE, DeployedModel
from engine.images.image_io import to_rgb, upright
from engine.images.lazy_image import LazyImage, load_image
from engine.run_folder.used_config import is_exported, require_exported
from engine.task.experiment import open_experiment
from engine.task.inference import ImageInference, Inference, inference_mode
from engine.task.other_tasks import explained
from engine.task.spec import TaskSpec

AnyImage = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
"""A path, one of Pillow's images, or an array of 8 bits: (H, W, 3) red, green and blue, or (H, W) grey."""


class LoadedModel:
    """A trained model that answers for images, in this process alone; what it is made of can be looked at.

    ``loaded.model(loaded.inputs(images))`` is what the torch module says of images, with gradients if they are wanted.
    """

    def __init__(self, inference: ImageInference, precision: Precision, batch_size: int) -> None:
        self.inference = inference
        self.classes: list[str] = inference.classes
        """Names of the classes, by number."""
        self._precision, self._batch_size = precision, batch_size
        inference.model.eval()

    @property
    def model(self) -> nn.Module:
        """Returns the torch module with its weights, on its device, in evaluation mode (Identity if exported)."""
        return self.inference.model

    def inputs(self, images: Sequence[AnyImage]) -> Tensor:
        """Returns what :attr:`model` is given of B images: float32 (B, 3, H, W), normalised, on its device.

        Raises:
            TypeError, UserError: as of a call; or the model is an exported one, which is no torch module.
        """
        _require_several(images)
        device = next((parameter.device for parameter in self.model.parameters()), None)
        return self.inference.inputs(self._prepared([_loaded(image) for image in images]).to(device))

    def __call__(self, images: Sequence[AnyImage]) -> list[Any]:
        """Returns what the model says of each of ``images``.

        Raises:
            TypeError: it is a single one, or there are others among them.
            UserError: a file cannot be read, or an array is no image.
        """
        _require_several(images)
        images, found = list(images), list[Any]()
        for first in range(0, len(images), self._batch_size):
            batch = [_loaded(image) for image in images[first : first + self._batch_size]]
            prepared = self._prepared(batch)
            with inference_mode(self.inference.model, self._precision):
                found += self.inference.answers(prepared, torch.tensor([image.size for image in batch]))
        return found

    def _prepared(self, images: Sequence[LazyImage]) -> Tensor:
        return torch.stack([self.inference.transform(image) for image in images])


def _require_several(images: Sequence[AnyImage]) -> None:
    single = isinstance(images, np.ndarray) and images.ndim < 4
    if single or isinstance(images, str | os.PathLike | Image.Image):
        raise TypeError("a model answers for a list of images: write [image] for one")


def _loaded(image: AnyImage) -> LazyImage:
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or not image.size or image.shape[2:] not in ((), (3,)) or image.ndim < 2:
            shape = tuple(image.shape)
            raise UserError(f"an array of {image.dtype} {shape} is no image; (height, width, 3) of uint8 is")
        image = Image.fromarray(image)
    if isinstance(image, Image.Image):
        return LazyImage.of(to_rgb(upright(image)))
    if not isinstance(image, str | os.PathLike):
        raise TypeError(f"a path, an array or a Pillow image is needed, not {type(image).__name__}")
    return load_image(Path(image))


def load_model(
    spec: TaskSpec,
    experiment: str | os.PathLike[str],
    checkpoint: str = "best",
    device: str | torch.device | None = None,
    overrides: Sequence[str] = (),
) -> LoadedModel:
    """Loads the trained model of an experiment's folder that answers for images, or one exported to .onnx.

    The arguments are those of :func:`load_inference`; an exported model takes no other than the path.
    """
    if is_exported(experiment):
        assert spec.deployed is not None, f"{spec.name} answers for images"
        require_exported(Path(experiment), overrides, checkpoint)
        deployed = spec.deployed(DeployedModel(experiment, spec.name))
        return LoadedModel(deployed, resolve_precision("fp32", torch.device("cpu")), BATCH_SIZE)
    inference, config, place = load_inference(spec, experiment, checkpoint, device, overrides)
    precision = resolve_precision(config.training.precision, place)
    return LoadedModel(cast(ImageInference, inference), precision, config.evaluation.batch_size)


def load_inference(
    spec: TaskSpec,
    experiment: str | os.PathLike[str],
    checkpoint: str = "best",
    device: str | torch.device | None = None,
    overrides: Sequence[str] = (),
) -> tuple[Inference, RunConfig, torch.device]:
    """Loads what a task makes of an experiment's folder; no process group is needed.

    Args:
        checkpoint: ``best``, ``last`` or a file.
        device: None: a GPU if there is one, else the CPU.
        overrides: ``key.path=value``, as for the commands that use a trained model.

    Raises:
        UserError: folder, checkpoint or overrides are not as they should be.
    """
    try:
        opened = open_experiment(Path(experiment), checkpoint, spec.schema(), overrides)
    except UserError as error:
        raise UserError(explained(error)) from None
    place = choose_device(opened.config.distributed, Layout()) if device is None else torch.device(device)
    return spec.inference(opened, Ranks(Layout(), place)), opened.config, place
