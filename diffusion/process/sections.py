"""Keys of the `diffusion` section about the process: how noise is added, and at which times it is learnt."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from engine.config.section import Positive, Section, Variants, refuse_unused


class CommonSchedule(Section):
    """What all schedules of noise have."""

    name: str
    """How the shares of image and noise change with time."""
    shift: Positive | Literal["size"] = 1.0
    """What the noise-to-image ratio is multiplied by at every time; size: the root of the image's pixels over 32, as
    larger images survive more noise."""

    @property
    def ends_in_noise(self) -> bool:
        """Tells whether nothing of the image is left at the end."""
        return False


class VarianceSchedule(CommonSchedule):
    """alpha^2 + sigma^2 = 1, as in DDPM."""

    name: Literal["cosine", "linear", "sigmoid"] = "cosine"
    """How the shares of image and noise change with time."""
    steps: Annotated[int, Field(ge=2, le=100_000)] | None = None
    """Steps of the table that is trained on, as DDPM's 1000; null: any time between image and noise."""
    zero_terminal_snr: bool = False
    """Rescale so that the last step is noise alone; without, a little of the image is left there, which training sees
    and sampling has not."""

    @property
    def ends_in_noise(self) -> bool:
        return self.zero_terminal_snr or (self.name == "cosine" and self.steps is None)

    @model_validator(mode="after")
    def _no_unused_keys(self) -> "VarianceSchedule":
        if self.name == "cosine" and self.steps is None:
            text = "steps (a cosine schedule without them ends in noise)"
            refuse_unused(self, [("zero_terminal_snr", text, ["name", "steps"])])
        return self


class FlowSchedule(CommonSchedule):
    """alpha + sigma = 1: the straight line of rectified flow."""

    name: Literal["flow"]
    """How the shares of image and noise change with time."""

    @property
    def ends_in_noise(self) -> bool:
        return True


class EdmSchedule(CommonSchedule):
    """alpha = 1, and sigma from 0.002 to 80 (Karras et al., 2022)."""

    name: Literal["edm"]
    """How the shares of image and noise change with time."""


ScheduleConfig = Annotated[VarianceSchedule | FlowSchedule | EdmSchedule, Variants("name")]


class PlainWeighting(Section):
    """A weight that needs no number."""

    name: Literal["none", "edm"] = "none"
    """none: the loss of the objective as it is; edm: the weights of Karras et al., 2022."""


class MinSnrWeighting(Section):
    """The signal-to-noise ratio, bounded (Hang et al., 2023)."""

    name: Literal["min_snr"]
    """Weight of the loss at each level of noise."""
    gamma: Positive = 5.0
    """The bound."""


WeightingConfig = Annotated[PlainWeighting | MinSnrWeighting, Variants("name")]


class CommonTimes(Section):
    """What all distributions of times have."""

    name: str
    """How often each time is trained on."""
    stratified: bool = False
    """Spread the times of a global batch evenly, which makes its loss less noisy."""


class UniformTimes(CommonTimes):
    """Every time alike."""

    name: Literal["uniform"] = "uniform"
    """How often each time is trained on."""


class LogitNormalTimes(CommonTimes):
    """log(t / (1 - t)) is normally distributed: middle times are the most frequent (Esser et al., 2024)."""

    name: Literal["logit_normal"]
    """How often each time is trained on."""
    mean: float = 0.0
    """Mean; above 0, noisier times are more frequent."""
    std: Positive = 1.0
    """Standard deviation."""


class LogNormalTimes(CommonTimes):
    """log(sigma / alpha) is normally distributed, whatever the schedule (Karras et al., 2022)."""

    name: Literal["log_normal"]
    """How often each time is trained on."""
    mean: float = -1.2
    """Mean."""
    std: Positive = 1.2
    """Standard deviation."""


TimesConfig = Annotated[UniformTimes | LogitNormalTimes | LogNormalTimes, Variants("name")]
