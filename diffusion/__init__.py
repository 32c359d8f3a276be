"""Diffusion: a Swin U-Net that learns to generate images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import torch

    from diffusion.inference import LoadedSampler


def load_sampler(
    experiment: str | os.PathLike[str],
    checkpoint: str = "best",
    device: str | torch.device | None = None,
    overrides: Sequence[str] = (),
) -> LoadedSampler:
    """Loads a trained generator, which makes images.

    ``load_sampler("experiments/experiment_0007")(8, class_ids=[3])`` is a list of Pillow images. The arguments are
    those of :func:`engine.task.loading.load_inference`.
    """
    from diffusion.inference import DiffusionInference, LoadedSampler
    from diffusion.spec import SPEC
    from engine.task.loading import load_inference

    inference, config, place = load_inference(SPEC, experiment, checkpoint, device, overrides)
    return LoadedSampler(cast(DiffusionInference, inference), config, place)
