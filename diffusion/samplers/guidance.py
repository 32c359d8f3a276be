"""What is put around a denoiser: guidance towards a class, and bounds of the image that it sees."""

from __future__ import annotations

import math

from torch import Tensor

from diffusion.process.process import Denoise


def guided(
    conditional: Denoise, unconditional: Denoise, guidance: float, interval: tuple[float, float] = (0.0, math.inf)
) -> Denoise:
    """Returns a denoiser that goes beyond the conditional one, away from the unconditional one (Ho and Salimans,
    "Classifier-Free Diffusion Guidance", 2022).

    Args:
        conditional: Knows the classes asked for.
        unconditional: Knows none.
        guidance: 0 is the unconditional one, 1 the conditional one, which then is returned as it is.
        interval: Levels that are guided, from and to these values of sigma / alpha; the others are left to the
            conditional one alone (Kynkäänniemi et al., "Applying Guidance in a Limited Interval", NeurIPS 2024).
    """
    if guidance == 1:
        return conditional
    low, high = interval

    def denoise(noisy: Tensor, alpha: float, sigma: float) -> Tensor:
        ratio = math.inf if alpha == 0 else sigma / alpha
        with_class = conditional(noisy, alpha, sigma)
        if not low <= ratio <= high:
            return with_class
        without = unconditional(noisy, alpha, sigma)
        return without + guidance * (with_class - without)

    return denoise


def clipped(denoise: Denoise, bound: float = 1.0) -> Denoise:
    """Returns a denoiser whose images are clipped to [-bound, bound]."""
    return lambda noisy, alpha, sigma: denoise(noisy, alpha, sigma).clamp(-bound, bound)


def thresholded(denoise: Denoise, share: float = 0.995, most: float = 1.0) -> Denoise:
    """Returns a denoiser whose images are thresholded dynamically (Saharia et al., NeurIPS 2022, section 2.3): each is
    clipped to the value s that `share` of its pixels do not exceed, and divided by s.

    Args:
        denoise: The denoiser.
        share: In (0, 1].
        most: Bound of s, which is never less than 1.
    """

    def bounded(noisy: Tensor, alpha: float, sigma: float) -> Tensor:
        image = denoise(noisy, alpha, sigma)
        bound = image.float().abs().flatten(1).quantile(share, dim=1).clamp(1.0, max(most, 1.0))
        bound = bound.to(image.dtype).view(-1, *[1] * (image.dim() - 1))
        return image.clamp(-bound, bound) / bound

    return bounded
