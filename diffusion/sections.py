"""The `diffusion` and `evaluation` sections: what is learnt of noise and classes, and what is looked at."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from diffusion.process.sections import (
    PlainWeighting,
    ScheduleConfig,
    TimesConfig,
    UniformTimes,
    VarianceSchedule,
    WeightingConfig,
)
from diffusion.samplers.sections import SamplingConfig
from engine.config.paths import AbsolutePath
from engine.config.section import Fraction, OnlyWith, Positive, Section, refuse_unused
from engine.config.training import EvaluationConfig


class DiffusionSection(Section):
    """How noise is added, what the network is asked for, and how images are sampled."""

    objective: Literal["v", "eps", "x0", "flow", "edm"] = "v"
    """What the network is asked for: v, a mixture of noise and image; eps, the noise; x0, the image; flow, the way from
    image to noise; edm, v as Karras et al. scale it. Every sampler goes with each of them."""
    sigma_data: Positive = 0.5
    """Standard deviation of the images' values in [-1, 1], which edm assumes."""
    schedule: ScheduleConfig = VarianceSchedule()
    """How the shares of image and noise change with time."""
    weighting: WeightingConfig = PlainWeighting()
    """Weight of the loss at each level of noise."""
    times: TimesConfig = UniformTimes()
    """How often each level of noise is trained on."""
    conditioning: Literal["auto", "class", "none"] = "auto"
    """What the network is told besides the noise; auto: the class, where images have one each."""
    label_dropout: Annotated[Fraction, OnlyWith(("conditioning",), ("auto", "class"))] = 0.1
    """Share of training images whose class is not told, so that guidance knows what images without one look like."""
    sampling: SamplingConfig = SamplingConfig()
    """How images are sampled."""

    @model_validator(mode="after")
    def _fits_together(self) -> "DiffusionSection":
        schedule, sampling = self.schedule, self.sampling
        if "edm" not in (self.objective, self.weighting.name):
            either = "objective: edm or weighting.name: edm"
            refuse_unused(self, [("sigma_data", either, ["objective", "weighting.name"])])
        if self.objective == "eps" and schedule.ends_in_noise:
            raise ValueError(
                f"objective: eps says nothing of the image where nothing of it is left, as at the end of this "
                f"{schedule.name} schedule; use v, x0, flow or edm, or a schedule with steps and without "
                "zero_terminal_snr"
            )
        most = schedule.steps if isinstance(schedule, VarianceSchedule) else None
        if most is not None and sampling.steps > most and sampling.spacing != "karras":
            raise ValueError(
                f"sampling.steps: {sampling.steps} is more than the {most} that the schedule has; use {most} or fewer"
            )
        if sampling.guidance != 1 and (self.conditioning == "none" or self.label_dropout == 0):
            raise ValueError(
                f"sampling.guidance: {sampling.guidance:g} needs a network that knows images with and without a class "
                "(conditioning, and label_dropout above 0 in training); use 1"
            )
        return self


class DiffusionEvaluationConfig(EvaluationConfig):
    """When and on which weights to evaluate, and what to sample then."""

    grid_rows: Annotated[int, Field(ge=0, le=1000)] = 3
    """Rows of the grid of samples that each evaluation draws, of the same noise and classes every time; 0: none."""
    samples: Annotated[int, Field(ge=4, le=10**7)] | Literal[0] | None = None
    """Samples that are compared with real images (Frechet distance and others); 0: none; null: none while a run trains,
    1000 in `diffusion.evaluate`."""
    judge: AbsolutePath | None = None
    """Experiment folder of a trained classifier: samples are compared in its features, and it tells whether they show
    the classes that were asked for; null: pixels are compared."""
    reference: Literal["split", "train"] = "split"
    """Which real images samples are compared with: those of the split that is evaluated, or those trained on."""
    nearest_train: bool = True
    """Whether `diffusion.evaluate` looks for its samples among all training images, so that copies are seen."""
