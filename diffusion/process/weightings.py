"""How much the loss at each level counts."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from diffusion.process.objectives import Objective

Name = Literal["none", "min_snr", "edm"]


def loss_weight(name: Name, objective: Objective, alpha: Tensor, sigma: Tensor, gamma: float = 5.0) -> Tensor:
    """Returns the weight of the squared error of a network's output, of the shape of `alpha`.

    - none: 1
    - min_snr: the squared error of the image counts min(alpha^2 / sigma^2, gamma), whatever the objective (Hang et al.,
      "Efficient Diffusion Training via Min-SNR Weighting Strategy", ICCV 2023)
    - edm: the squared error of the image counts as by Karras et al., 2022; 1 for the objective edm
    """
    if name == "none":
        return alpha.new_ones(alpha.shape)
    of_image = objective.gain(alpha, sigma) ** 2 * alpha.new_ones(alpha.shape)
    if name == "min_snr":
        return (alpha / sigma).square().clamp(max=gamma) * of_image
    variance = objective.sigma_data**2
    return (sigma.square() + variance * alpha.square()) / (sigma.square() * variance) * of_image
