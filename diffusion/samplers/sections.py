"""Keys of `diffusion.sampling`: how images are sampled, in a run's evaluations and by default ever after."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from engine.config.section import (
    Batch,
    NonNegative,
    NonNegativeRange,
    OnlyWith,
    PartOfOne,
    Probability,
    Section,
    refuse_unused,
)


class SamplingConfig(Section):
    """From noise to images."""

    sampler: Literal["ddpm", "ddim", "euler", "heun", "dpmpp", "unipc"] = "ddim"
    """ddpm draws noise at every step; ddim and euler take straight steps; heun evaluates twice a step; dpmpp and unipc
    remember the last steps and need the fewest."""
    steps: Annotated[int, Field(ge=1, le=100_000)] = 50
    """Steps of the sampler."""
    spacing: Literal["trailing", "uniform", "karras"] = "trailing"
    """Where they lie: trailing and uniform in time; karras denser where there is little noise."""
    eta: Annotated[Probability, OnlyWith(("sampler",), ("ddim",))] = 0.0
    """Share of the noise that each step draws anew; 1 is ddpm."""
    guidance: NonNegative = 1.0
    """How far to go beyond what the class alone suggests (classifier-free guidance): 1 not at all, at half the cost;
    2 to 4: clearer images that are more alike; 0: whatever the class."""
    guidance_interval: NonNegativeRange | None = None
    """Least and most noise, as a ratio of noise to image, between which to guide; null: everywhere."""
    clip: Literal["static", "dynamic", "none"] = "static"
    """What is done at each step to pixels beyond black and white; dynamic: scale the image down until few are."""
    clip_share: Annotated[PartOfOne, OnlyWith(("clip",), ("dynamic",))] = 0.995
    """Share of pixels that are within."""
    block: Batch = 32
    """Images that go through the network together, always that many: a request is filled up, so that an image is the
    same bit for bit however many are asked for, by any number of ranks. More are faster on a GPU."""

    @model_validator(mode="after")
    def _no_unused_keys(self) -> "SamplingConfig":
        if self.guidance == 1:
            refuse_unused(self, [("guidance_interval", "another guidance than 1", ["guidance"])])
        return self
