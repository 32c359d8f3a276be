"""A trained diffusion network for other runtimes: the denoiser, around which any sampler can be written."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from diffusion.process.process import Network, Process
from engine.errors import UserError
from engine.exported.exportable import Exportable, Runtime

LEVELS = (0.05, 0.4, 0.8, 1.2, 1.5)
"""Angles of the noise that a check looks at, atan2(sigma, alpha)."""


class ExportedDenoiser(nn.Module):
    """Maps noisy images (B, C, H, W), alpha and sigma (B,), and labels (B,) if there are classes, to images.

    The estimate of the image in alpha * image + sigma * noise, of any scale; images lie in [-1, 1]. The label that is
    one more than the last class stands for none, as guidance needs it.
    """

    def __init__(self, model: Network, process: Process) -> None:
        super().__init__()
        self.model, self._objective = model, process.objective

    def forward(self, noisy: Tensor, alpha: Tensor, sigma: Tensor, labels: Tensor | None = None) -> tuple[Tensor]:
        levels = alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)
        output = self.model(noisy / self._objective.scale(*levels), torch.atan2(sigma, alpha), labels)
        return (self._objective.image(output, noisy, *levels),)


def exportable(inference: Any, runtime: Runtime, raw: bool) -> Exportable:
    """Makes the denoiser of a :class:`diffusion.inference.DiffusionInference` ready for an exporter.

    Raises:
        UserError: ``raw``, which says nothing here.
    """
    if raw:
        raise UserError("--raw: is for detectors; a denoiser has one output")
    generator, classes = inference.generator, inference.classes
    channels, height, width = generator.shape

    def samples(count: int) -> tuple[Tensor, ...]:
        random = torch.Generator().manual_seed(0)
        angles = torch.tensor([LEVELS[row % len(LEVELS)] for row in range(count)])
        noisy = torch.randn(count, channels, height, width, generator=random)
        labels = (torch.arange(count) % (len(classes) + 1),) if classes else ()
        return noisy, angles.cos(), angles.sin(), *labels

    names = ("noisy", "alpha", "sigma", *(("labels",) if classes else ()))
    module = ExportedDenoiser(inference.model, generator.process).eval()
    return Exportable(
        kind="image",
        module=module,
        reference=module,
        network=inference.model,
        inputs=names,
        outputs=("image",),
        samples=samples,
        description={
            "input": {
                "name": ", ".join(names),
                "dtype": "float32, but labels: int64",
                "shape": ["batch", channels, height, width],
                "colours": "alpha * image + sigma * noise, of images in [-1, 1]",
            },
            "classes": classes,
            "no_class": len(classes),
            "objective": generator.process.objective.name,
            "largest_angle": math.pi / 2,
        },
        model_name=inference.config.model.name,
    )
