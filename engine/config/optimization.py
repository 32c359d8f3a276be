"""The `optimizer` and `schedule` sections: how weights change, and how the rate of that does."""

from __future__ import annotations

import difflib
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from engine.config.section import (
    CountOrNone,
    Fraction,
    NonNegative,
    OnlyWith,
    PartOfOne,
    Positive,
    Section,
    Unused,
    UnusedKeys,
    Variants,
    may_import,
    refuse_unused,
)

Part = Annotated[float, Field(gt=0, lt=1)]


class CommonOptimizer(Section):
    """What every optimizer has."""

    name: str
    """An optimizer of timm."""
    lr: Positive = 1e-3
    """Base learning rate, for the configured global batch size."""
    weight_decay: NonNegative = 0.05
    """Decay of weight matrices and kernels."""
    decay_norm_and_bias: bool = False
    """Decay norms, biases and what the model itself excepts (such as bias tables) too."""


class AdamConfig(CommonOptimizer):
    """Adam and what steps by the same averages."""

    name: Literal["adamw", "adam", "lamb"] = "adamw"
    """An optimizer of timm."""
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)] | None = None
    """Decay rates of the moments; null: the optimizer's own."""
    eps: Positive | None = None
    """Added to the denominator; null: the optimizer's own."""


class SgdConfig(CommonOptimizer):
    """Stochastic gradient descent."""

    name: Literal["sgd", "momentum"]
    """sgd (Nesterov) or momentum."""
    momentum: Fraction = 0.9
    """Share of the step before in each step."""


COMMON_NAMES = ("adamw", "adam", "lamb", "sgd", "momentum")

UNDIVIDED = {"lamb", "lambc", "lambcd", "lambcw", "lambw", "clamb", "clambw", "kron", "kronc", "kronw"}
"""Those of timm's that `training.shard` cannot divide: a parameter's step depends on all the others."""


def undivided(optimizer: str) -> str:
    """Returns what is wrong with an optimizer whose state cannot be divided over ranks."""
    return (
        f"'{optimizer}' (optimizer.name) cannot be divided, since it does not advance each parameter by itself; use "
        "training.shard=none, or an optimizer such as adamw"
    )


class OtherOptimizerConfig(CommonOptimizer):
    """Any other optimizer of timm; it has the keys that timm says it has."""

    name: Annotated[str, Field(json_schema_extra={"not": {"enum": [*COMMON_NAMES]}})]
    """An optimizer of timm: nadamw, lion, adafactor, muon, rmsprop, ..."""
    momentum: Fraction = 0.9
    """Momentum, if it has one."""
    betas: list[Fraction] | None = None
    """Decay rates of its moments; null: the optimizer's own."""
    eps: Positive | None = None
    """Added to the denominator; null: the optimizer's own."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        if not may_import(info):
            return name
        from timm.optim import list_optimizers

        names = list_optimizers()
        if name not in names:
            near = difflib.get_close_matches(name, names, 3) or ["adamw", "sgd", "lamb"]
            raise ValueError(f"timm has no optimizer '{name}'; did you mean {' or '.join(map(repr, near))}?")
        return name

    @model_validator(mode="after")
    def _has_these_keys(self, info: ValidationInfo) -> OtherOptimizerConfig:
        if may_import(info):
            from timm.optim import get_optimizer_info

            about = get_optimizer_info(self.name)
            if about.second_order:
                raise ValueError(f"name: '{self.name}' needs second derivatives, which are not computed; try adamw")
            if self.betas is not None and len(self.betas) != about.num_betas:
                raise ValueError(f"betas: '{self.name}' takes {about.num_betas} numbers, not {len(self.betas)}")
            absent = [key for key in ("momentum", "betas", "eps") if not getattr(about, f"has_{key}")]
            refuse_unused(self, [(key, f"an optimizer that has it (not {self.name})", ["name"]) for key in absent])
        return self


OptimizerConfig = Annotated[AdamConfig | SgdConfig | OtherOptimizerConfig, Variants("name")]


class WarmUp(Section):
    """A schedule that may begin with a linear warm-up."""

    name: str
    """Shape of the learning rate as a function of the optimizer step."""
    warmup_epochs: NonNegative = 0
    """Epochs of linear warm-up (fractions are fine)."""
    warmup_steps: CountOrNone | None = None
    """Optimizer steps of warm-up, instead of `warmup_epochs`."""
    warmup_lr: Annotated[NonNegative, OnlyWith(("warmup_epochs", "warmup_steps"))] = 1e-6
    """Rate of the first warm-up step."""

    @property
    def warms_up(self) -> bool:
        """Tells whether there is a warm-up at all."""
        return bool(self.warmup_epochs or self.warmup_steps)

    @model_validator(mode="after")
    def _one_length(self) -> WarmUp:
        if self.warmup_steps is not None and self.warmup_epochs > 0:
            both = ("warmup_epochs", "warmup_steps")
            raise UnusedKeys([Unused(both, "give `warmup_epochs` or `warmup_steps`, not both", both)])
        return self


class CosineSchedule(WarmUp):
    """Half a cosine down to `min_lr`."""

    name: Literal["cosine"] = "cosine"
    """Shape after warm-up."""
    min_lr: NonNegative = 0.0
    """Rate to which it falls, reached after the last step."""


class MilestonesSchedule(WarmUp):
    """Constant but for drops at given epochs."""

    name: Literal["milestones"]
    """Shape after warm-up."""
    milestones: Annotated[list[Positive], Field(min_length=1)]
    """Epochs at which the rate is multiplied by `gamma`."""
    gamma: Part = 0.1
    """Factor at each milestone."""

    @field_validator("milestones")
    @classmethod
    def _increasing(cls, milestones: list[float]) -> list[float]:
        if milestones != sorted(set(milestones)):
            raise ValueError(f"must increase, not {milestones}")
        return milestones


class OneCycleSchedule(Section):
    """Up and down again, each by half a cosine; its own warm-up."""

    name: Literal["one_cycle"]
    """Shape."""
    one_cycle_rise: Part = 0.3
    """Part of the run in which the rate rises."""
    one_cycle_start: PartOfOne = 0.04
    """First rate, as a part of `optimizer.lr`."""
    one_cycle_end: PartOfOne = 4e-6
    """Last rate, as a part of `optimizer.lr`."""


class ConstantSchedule(WarmUp):
    """One rate after warm-up."""

    name: Literal["constant"]
    """Shape after warm-up."""


class PlateauConfig(Section):
    """When and how far the rate is lowered for want of progress."""

    factor: Part = 0.1
    """What the rate is multiplied by."""
    patience: CountOrNone = 10
    """Evaluations without progress that are let pass before."""
    min_delta: NonNegative = 1e-4
    """Least change of `evaluation.metric` that counts as progress."""


class PlateauSchedule(WarmUp):
    """Lowered whenever evaluations bring no progress."""

    name: Literal["plateau"]
    """Shape after warm-up."""
    min_lr: NonNegative = 0.0
    """Rate below which it does not go."""
    plateau: PlateauConfig = PlateauConfig()
    """When and how far it is lowered."""


ScheduleConfig = Annotated[
    CosineSchedule | MilestonesSchedule | OneCycleSchedule | ConstantSchedule | PlateauSchedule, Variants("name")
]
