"""The configuration of a run: the sections that all tasks share.

A task's configuration inherits from :class:`RunConfig` and adds its own sections.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, model_validator

from engine.config.optimization import (
    UNDIVIDED,
    AdamConfig,
    CosineSchedule,
    OptimizerConfig,
    ScheduleConfig,
    WarmUp,
    undivided,
)
from engine.config.paths import AbsolutePath
from engine.config.section import (
    Count,
    OnlyWith,
    Plausible,
    Positive,
    Section,
    Seed,
    Unused,
    UnusedKeys,
    of_trained_model,
)
from engine.config.training import EvaluationConfig, FinetuneConfig, TrainingConfig

FREE = (
    "experiment.name",
    "experiment.notes",
    "experiment.tags",
    "experiment.root",
    "data.workers",
    "data.read_threads",
    "data.prefetch",
    "data.read_timeout_seconds",
    "data.stage",
    "data.multiprocessing_context",
    "training.shard",
    "training.profile",
    "checkpoint",
    "logging",
    "distributed",
)
"""Settings that cannot change the result, so a resumed run may change them."""

WaitSeconds = Annotated[float, Field(gt=0, le=30 * 86400)]


class ExperimentConfig(Section):
    """What the run is called and where it is kept."""

    name: str = ""
    """A readable name: shown in README.md, logs and comparisons."""
    root: AbsolutePath = Path("experiments")
    """Folder that holds experiment_0001, experiment_0002, ..."""
    tags: list[str] = []
    """Free words to find the run again."""
    notes: str = ""
    """Free text: why this run was made."""
    seed: Seed = 0
    """Decides initial weights, data order, augmentation, mixing and dropout."""


class CheckpointConfig(Section):
    """When checkpoints are written besides each evaluation's, and how many are kept."""

    every_steps: Count | None = None
    """Optimizer steps between checkpoints; null: only at evaluations."""
    every_minutes: Positive | None = None
    """Minutes between checkpoints; null: only at evaluations."""
    keep: Annotated[int, Field(ge=2), Plausible] = 2
    """Newest checkpoints kept, besides the best."""


class LoggingConfig(Section):
    """How often the run reports."""

    every_steps: Count = 50
    """Optimizer steps between training records."""
    tensorboard: bool = True
    """Write event files for TensorBoard."""


class DistributedConfig(Section):
    """Devices and processes."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA where there is one."""
    backend: Literal["auto", "nccl", "gloo"] = "auto"
    """auto: nccl on whole GPUs, gloo on CPUs and MIG slices."""
    timeout_seconds: WaitSeconds = 600.0
    """Longest wait for another rank, or without progress, before the run is ended; 30 days at most."""
    start_timeout_seconds: WaitSeconds = 1800.0
    """The same until a rank's first step is done, where listing, downloads and compiling give no sign of progress, and
    for whatever else gives none: a step that compiles anew, figures computed by rank 0 alone. Half an hour is more than
    any of these takes at a reasonable scale, and little beside the day that a job lasts which nobody looks at."""
    sync_batchnorm: Annotated[bool, OnlyWith(("device",), ("auto", "cuda"))] = False
    """Batch norm statistics over the whole micro-batch of all ranks (CUDA only; without effect on one rank)."""

    @model_validator(mode="after")
    def _has_devices(self) -> "DistributedConfig":
        if self.backend == "nccl" and self.device == "cpu":
            text = "nccl needs GPUs, and device is cpu; use gloo or auto"
            raise UnusedKeys([Unused(("backend",), text, ("device",))])
        return self


class RunConfig(Section):
    """The sections that every task has."""

    used_when_trained: ClassVar[tuple[str, ...]] = ()
    """A task's own settings that matter where a trained model is used."""
    only_to_train: ClassVar[tuple[str, ...]] = ()
    """Settings of the data that do not."""
    locations: ClassVar[tuple[str, ...]] = ("finetune.weights",)
    """Settings that may be absolute paths: a run that goes on may find the same files elsewhere."""

    experiment: ExperimentConfig = ExperimentConfig()
    """Name, place and seed of the run."""
    optimizer: OptimizerConfig = AdamConfig()
    """Optimizer, rate and decay."""
    schedule: ScheduleConfig = CosineSchedule()
    """How the rate changes."""
    training: TrainingConfig = TrainingConfig()
    """Length, batches, precision."""
    finetune: FinetuneConfig = FinetuneConfig()
    """Weights to start from."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """When and on what weights to evaluate."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """When to save."""
    logging: LoggingConfig = LoggingConfig()
    """How often to report."""
    distributed: DistributedConfig = DistributedConfig()
    """Devices and processes."""

    @model_validator(mode="after")
    def _sections_fit(self) -> "RunConfig":
        rates = {"schedule.min_lr": getattr(self.schedule, "min_lr", 0.0)}
        if isinstance(self.schedule, WarmUp) and self.schedule.warms_up:
            rates["schedule.warmup_lr"] = self.schedule.warmup_lr
        for key, rate in rates.items():
            if rate > self.optimizer.lr:
                raise ValueError(f"{key} ({rate:g}) is above optimizer.lr ({self.optimizer.lr:g})")
        if self.evaluation.weights == "ema" and self.training.ema is None:
            raise ValueError("evaluation.weights is 'ema' but training.ema is not set (for example {decay: 0.9998})")
        # The same on any number of ranks, so that what is tried on one also runs on many.
        if self.training.shard == "optimizer" and self.optimizer.name in UNDIVIDED:
            raise ValueError(f"training.shard: {undivided(self.optimizer.name)}")
        return self

    @model_validator(mode="after")
    def _second_average_is_there(self, info: ValidationInfo) -> "RunConfig":
        if self.evaluation.weights == "second_ema":
            if not of_trained_model(info):
                raise ValueError("evaluation.weights: second_ema is for a trained model; a run evaluates it anyway")
            if self.training.ema is None or self.training.ema.second_decay is None:
                raise ValueError("evaluation.weights: second_ema: the run had no training.ema.second_decay")
        return self
