"""What a network is asked for: noise, image, or a mixture of both, and how the image is found from its answer.

Every objective is linear in image and noise, so that its two shares in the target say all about it. alpha and sigma are
floats, or tensors that broadcast against images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

Name = Literal["eps", "x0", "v", "flow", "edm"]


@dataclass(frozen=True)
class Objective:
    """Target of a network at any level.

    - eps: the noise (Ho et al., 2020)
    - x0: the image
    - v: alpha * noise - sigma * image (Salimans and Ho, "Progressive Distillation", ICLR 2022)
    - flow: noise - image, the velocity along a straight line (Liu et al., "Flow Straight and Fast", ICLR 2023)
    - edm: preconditioned as by Karras et al., 2022. That is -v of the image divided by sigma_data.
    """

    name: Name = "v"
    sigma_data: float = 0.5
    """Standard deviation of the images' values, which edm assumes."""

    def scale(self, alpha: Any, sigma: Any) -> Any:
        """Returns what a noisy image and its level are divided by, before the network sees the one and the formulas
        the other: levels of any schedule with the same sigma / alpha are then one.
        """
        if self.name == "flow":
            return alpha + sigma
        data = self.sigma_data if self.name == "edm" else 1.0
        return ((data * alpha) ** 2 + sigma**2) ** 0.5

    def target(self, image: Tensor, noise: Tensor, alpha: Any, sigma: Any) -> Tensor:
        """Returns what the network should answer, of the images' shape."""
        of_image, of_noise = self._shares(alpha, sigma)
        return of_image * image + of_noise * noise

    def image(self, output: Tensor, noisy: Tensor, alpha: Any, sigma: Any) -> Tensor:
        """Returns the image that the network's `output` amounts to.

        Args:
            output: What the network answers.
            noisy: alpha * image + sigma * noise.
            alpha: The image's share; not 0 for eps, whose answer says nothing about the image then.
            sigma: The noise's share, not 0.
        """
        gain, of_noise = self.gain(alpha, sigma), self._shares(alpha, sigma)[1]
        return gain * output - gain * of_noise / sigma * noisy

    def gain(self, alpha: Any, sigma: Any) -> Any:
        """Returns how far the image moves for each unit that the network's output does; negative: the other way."""
        of_image, of_noise = self._shares(alpha, sigma)
        return sigma / (of_image * sigma - of_noise * alpha)

    def _shares(self, alpha: Any, sigma: Any) -> tuple[Any, Any]:
        """Returns the shares of image and noise in the target."""
        scale = self.scale(alpha, sigma)
        if self.name == "v":
            return -sigma / scale, alpha / scale
        if self.name == "edm":
            return sigma / scale / self.sigma_data, -self.sigma_data * alpha / scale
        return {"eps": (0.0, 1.0), "x0": (1.0, 0.0), "flow": (-1.0, 1.0)}[self.name]
