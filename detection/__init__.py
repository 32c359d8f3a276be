"""Object detection: SSD (Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016) on many backbones and necks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from engine.task.loading import LoadedModel


def load_detector(
    experiment: str | os.PathLike[str],
    checkpoint: str = "best",
    device: str | torch.device | None = None,
    overrides: Sequence[str] = (),
) -> LoadedModel:
    """Loads a trained detector, which finds objects on images.

    ``load_detector("experiments/experiment_0007")(["a.jpg", image])`` is a list of
    :class:`detection.inference.FoundObjects`.

    Images are paths, arrays or Pillow's, see :data:`engine.task.loading.AnyImage`. ``experiment`` may be an exported
    .onnx file. The arguments are those of :func:`engine.task.loading.load_model`.
    """
    from detection.spec import SPEC
    from engine.task.loading import load_model

    return load_model(SPEC, experiment, checkpoint, device, overrides)
