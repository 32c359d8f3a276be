"""The sections of a run's configuration that all tasks share.

A task's configuration inherits from :class:`RunConfig` and adds its own sections. The sentence under a field is its
documentation: it also stands in the JSON Schema and in the configuration reference.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_serializer,
    field_validator,
    model_validator,
)

from engine.config.section import AbsolutePath, Section, may_import
from engine.config.unused_keys import IdleKeys, refuse_idle

Positive = Annotated[float, Field(gt=0)]
WaitSeconds = Annotated[float, Field(gt=0, le=30 * 86400)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


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
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides initial weights, data order, augmentation, mixing and dropout."""


class EmaConfig(Section):
    """Exponential moving average of the weights, updated once an optimizer step (timm's ModelEmaV3)."""

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.9998
    """Weight of the average so far in each update."""
    warmup: bool = True
    """Start with a small decay that grows towards `decay`, so that short runs average too."""


class ProfileConfig(Section):
    """What is profiled."""

    steps: Annotated[list[Count], Field(min_length=2, max_length=2)]
    """First and last optimizer step, counted from 1; the first few of a run are not like the others."""

    @field_validator("steps")
    @classmethod
    def _in_order(cls, steps: list[int]) -> list[int]:
        if steps[0] > steps[1]:
            raise ValueError(f"the first step ({steps[0]}) is behind the last ({steps[1]})")
        return steps


class TrainingConfig(Section):
    """How long, in what batches and in what arithmetic the model is trained."""

    epochs: Count | None = None
    """Passes over the training set; 30 when neither `epochs` nor `steps` is given."""
    steps: Count | None = None
    """Optimizer steps, instead of `epochs`: of both, that counts which a later file or the command line gives."""
    global_batch_size: Count = 128
    """Samples in one optimizer step, over all ranks and accumulation steps."""
    micro_batch_size: Count | None = None
    """Most samples that one device takes through a forward pass; null: no bound."""
    accumulation: Count | Literal["auto"] = "auto"
    """Forward passes a device makes for one optimizer step; auto: the fewest that fit both batch sizes."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of forward and backward passes; auto: bf16 where the device computes in it, else fp32."""
    clip_grad_norm: Positive | None = None
    """Largest 2-norm of the whole gradient; a longer one is scaled down to it."""
    ema: EmaConfig | None = None
    """Moving average of the weights, which evaluation then uses; null: none."""
    compile: bool | Literal["default", "reduce-overhead", "max-autotune"] = False
    """Compile the model with torch.compile, in this mode (true: default): its repeated blocks one by one, which starts
    sooner, or the whole model where it has none. Evaluations run uncompiled."""
    tf32: bool | Literal["auto"] = "auto"
    """Let matrix products and convolutions of fp32 numbers on GPUs round their factors to 10 bits, which is up to ten
    times as fast (Ampere and later). auto: yes, but not with `deterministic`."""
    channels_last: bool | Literal["auto"] = "auto"
    """Keep pictures and weights in channels-last layout. auto: for convolutional models, which it makes faster."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    grad_comm: Literal["fp32", "bf16"] = "fp32"
    """What gradients are summed over ranks in; bf16 halves what is sent, and rounds it. One rank sends nothing."""
    shard: Literal["none", "optimizer"] = "none"
    """optimizer: each of up to eight neighbouring ranks keeps and steps with its part of the optimizer's state, which
    saves memory (of Adam's 8 bytes a parameter 7, at 8 ranks) and changes no bit. One rank keeps everything."""
    deterministic: bool = False
    """Use only operators whose results repeat bit by bit (needed on CUDA; CPU runs repeat anyway)."""
    max_nonfinite_steps: Count = 10
    """Steps in a row with a non-finite loss or gradient after which the run stops; single ones are skipped."""
    profile: ProfileConfig | None = None
    """Profile some steps of rank 0, such as `{steps: [10, 20]}`: a trace for Chrome and Perfetto, and a table of the
    operators that take longest, in the run's results/. null: none."""

    @model_validator(mode="before")
    @classmethod
    def _default_length(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("epochs") is None and values.get("steps") is None:
            return {**values, "epochs": 30}
        return values

    @model_validator(mode="after")
    def _one_length(self) -> "TrainingConfig":
        if self.epochs is not None and self.steps is not None:
            raise IdleKeys("epochs: give `epochs` or `steps`, not both", ["epochs", "steps"], ["epochs", "steps"])
        return self


COMMON_OPTIMIZERS = {
    "adamw": ("betas", "eps"),
    "adam": ("betas", "eps"),
    "sgd": ("momentum",),
    "momentum": ("momentum",),
    "lamb": ("betas", "eps"),
}
"""What these read of their own keys, known without asking timm, whose import takes seconds."""
UNDIVIDED = {"lamb", "lambc", "lambcd", "lambcw", "lambw", "clamb", "clambw", "kron", "kronc", "kronw"}
"""Those of timm's that `training.shard` cannot divide: a parameter's step depends on all the others."""


def undivided(optimizer: str) -> str:
    """What is wrong with an optimizer whose state cannot be divided over ranks."""
    return (
        f"'{optimizer}' cannot be divided, since it does not advance each parameter by itself; use "
        "training.shard=none, or an optimizer such as adamw"
    )


class OptimizerConfig(Section):
    """The optimizer, any of timm's, and its settings."""

    name: str = "adamw"
    """An optimizer of timm: adamw, sgd (Nesterov), momentum, lamb, adafactor, ..."""
    lr: Positive = 1e-3
    """Base learning rate, for the configured global batch size."""
    weight_decay: NonNegative = 0.05
    """Decay of weight matrices and kernels."""
    decay_norm_and_bias: bool = False
    """Decay norms, biases and what the model itself excepts (such as bias tables) too."""
    momentum: Fraction = 0.9
    """Momentum of the optimizers that have one."""
    betas: list[Fraction] | None = None
    """Decay rates of Adam-like optimizers' moments; null: the optimizer's own."""
    eps: Positive | None = None
    """Term added to Adam-like denominators; null: the optimizer's own."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        if name in COMMON_OPTIMIZERS or not may_import(info):
            return name
        import difflib

        from timm.optim import list_optimizers

        names = list_optimizers()
        if name not in names:
            near = difflib.get_close_matches(name, names, 3) or ["adamw", "sgd", "lamb"]
            raise ValueError(f"timm has no optimizer '{name}'; did you mean {' or '.join(map(repr, near))}?")
        return name

    @model_validator(mode="after")
    def _no_idle_keys(self, info: ValidationInfo) -> "OptimizerConfig":
        read = COMMON_OPTIMIZERS.get(self.name)
        if read is None and not may_import(info):
            return self
        if read is None:
            from timm.optim import get_optimizer_info

            about = get_optimizer_info(self.name)
            read = tuple(key for key in ("momentum", "betas", "eps") if getattr(about, f"has_{key}"))
        having = {"momentum": "momentum, as sgd", "betas": "betas, as adamw", "eps": "eps, as adamw"}
        for key, text in having.items():
            needed = f"a name of an optimizer that has {text} (not {self.name})"
            refuse_idle(self, [key], needed=needed, holds=key in read, deciders=["name"])
        return self

    @model_validator(mode="after")
    def _can_be_used(self, info: ValidationInfo) -> "OptimizerConfig":
        count = 2  # of betas
        if self.name not in COMMON_OPTIMIZERS:
            if not may_import(info):
                return self
            from timm.optim import get_optimizer_info

            about = get_optimizer_info(self.name)
            if about.second_order:
                raise ValueError(f"name: '{self.name}' needs second derivatives, which are not computed; try adamw")
            count = about.num_betas
        if self.betas is not None and len(self.betas) != count:
            raise ValueError(f"betas: '{self.name}' takes {count} numbers, not {len(self.betas)}")
        return self


class PlateauConfig(Section):
    """When and how far the rate is lowered for want of progress."""

    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What the rate is multiplied by."""
    patience: Annotated[int, Field(ge=0)] = 10
    """Evaluations without progress that are let pass before."""
    min_delta: NonNegative = 1e-4
    """Least change of `evaluation.metric` that counts as progress."""


class ScheduleConfig(Section):
    """The learning rate as a function of the optimizer step."""

    name: Literal["cosine", "milestones", "one_cycle", "constant", "plateau"] = "cosine"
    """Shape after warm-up."""
    warmup_epochs: NonNegative = 0
    """Epochs of linear warm-up (fractions are fine)."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Optimizer steps of warm-up, instead of `warmup_epochs`."""
    warmup_lr: NonNegative = 1e-6
    """Rate of the first warm-up step."""
    min_lr: NonNegative = 0.0
    """Rate to which cosine falls, reached after the last step, and below which plateau does not go."""
    milestones: list[Positive] = []
    """Epochs at which the rate is multiplied by `gamma`."""
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Factor at each milestone."""
    one_cycle_rise: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Part of the run in which the one-cycle rate rises."""
    one_cycle_start: Annotated[float, Field(gt=0, le=1)] = 0.04
    """First rate of one-cycle, as a part of `optimizer.lr`."""
    one_cycle_end: Annotated[float, Field(gt=0, le=1)] = 4e-6
    """Last rate of one-cycle, as a part of `optimizer.lr`."""
    plateau: PlateauConfig = PlateauConfig()
    """Settings of the plateau schedule."""

    @model_validator(mode="after")
    def _consistent(self) -> "ScheduleConfig":
        if self.warmup_steps is not None and self.warmup_epochs > 0:
            both = ["warmup_epochs", "warmup_steps"]
            raise IdleKeys("warmup_epochs: give `warmup_epochs` or `warmup_steps`, not both", both, both)
        if self.name == "milestones" and not self.milestones:
            raise ValueError("milestones: name: milestones needs at least one")
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError("`milestones` must increase")
        return self

    @model_validator(mode="after")
    def _no_idle_keys(self) -> "ScheduleConfig":
        for needed, keys in {
            "plateau": ["plateau"],
            "milestones": ["milestones", "gamma"],
            "one_cycle": ["one_cycle_rise", "one_cycle_start", "one_cycle_end"],
        }.items():
            refuse_idle(self, keys, needed=f"name: {needed}", holds=self.name == needed, deciders=["name"])
        falls = self.name in ("cosine", "plateau")
        refuse_idle(self, ["min_lr"], needed="name: cosine or plateau", holds=falls, deciders=["name"])
        refuse_idle(
            self,
            ["warmup_epochs", "warmup_steps"],
            needed="a name other than one_cycle, whose own warm-up is `one_cycle_rise`",
            holds=self.name != "one_cycle",
            deciders=["name"],
        )
        refuse_idle(
            self,
            ["warmup_lr"],
            needed="warmup_epochs or warmup_steps",
            holds=bool(self.warmup_epochs or self.warmup_steps),
            deciders=["warmup_epochs", "warmup_steps", "name"],
        )
        return self


ALL_STAGES = "all"
"""Stands in `finetune.unfreeze` for every stage of the model."""


def nothing_new(stages: Sequence[str]) -> str:
    """What is wrong with an epoch of `finetune.unfreeze` at which no stage begins to be trained."""
    return (
        f"{', '.join(stages) or 'no stage'}: trained from an earlier epoch on; remove it (what has begun to be trained "
        "is never frozen again)"
    )


Stages = Annotated[
    list[str],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""Names of stages; a single one may stand for itself."""


class FinetuneConfig(Section):
    """Starting from trained weights."""

    weights: Literal["timm"] | AbsolutePath | None = None
    """timm: what timm publishes for its models, from a cache, or else downloaded. Or a .safetensors, .pth or .pt file
    (one that is called timm: `./timm`), one of our checkpoints, or the folder of one of our experiments, whose best
    checkpoint is taken. The classifier is replaced if classes differ, and a Vision Transformer's positions are
    interpolated if the pictures have another size. null: start from nothing."""
    unfreeze: dict[Annotated[float, Field(ge=0, strict=False)], Stages] | None = None
    """What is trained from which epoch on (fractions are fine): `{0: head, 5: [stage_3, stage_4], 10: all}`. The stages
    are `stem`, `stage_1`, ..., `head`; what has not begun is frozen. In a file with a `base`, `!replace` before the
    braces leaves out what the base says. null: everything is trained from the beginning."""
    freeze_batchnorm: Literal["frozen_stages", "always", "never"] = "frozen_stages"
    """Batch norm that keeps to its running statistics and does not change them: that of stages which are frozen; of all
    but the head, always (for small batches); or none."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Each layer's rate is the next one's times this (layer-wise decay); null: one rate for all."""
    backbone_lr_scale: Positive = 1.0
    """Rate of all but the head, relative to `optimizer.lr`; it multiplies with `layer_decay`."""
    backbone_weight_decay: NonNegative | None = None
    """Weight decay of all but the head; null: `optimizer.weight_decay`, as for the head."""

    @field_validator("unfreeze")
    @classmethod
    def _begins(cls, unfreeze: dict[float, list[str]] | None) -> dict[float, list[str]] | None:
        if unfreeze is not None and not unfreeze.get(0):
            raise ValueError("must say what is trained from epoch 0 on, such as {0: head, 5: all}")
        begun: set[str] = set()
        for epoch in sorted(unfreeze or {}):
            names = (unfreeze or {})[epoch]
            if ALL_STAGES in begun or begun.issuperset(names):
                raise ValueError(f"epoch {epoch:g}: {nothing_new(names)}")
            begun.update(names)
        return unfreeze

    @model_validator(mode="after")
    def _no_idle_keys(self) -> "FinetuneConfig":
        matters = self.freeze_batchnorm == "always" or self.unfreeze is not None
        refuse_idle(self, ["freeze_batchnorm"], needed="unfreeze", holds=matters, deciders=["unfreeze"])
        return self

    @field_serializer("unfreeze", when_used="json")
    def _epochs_as_written(self, unfreeze: dict[float, list[str]] | None) -> dict[str, list[str]] | None:
        if unfreeze is None:
            return None
        return {str(int(epoch) if epoch.is_integer() else epoch): stages for epoch, stages in unfreeze.items()}

    @property
    def sets_head_apart(self) -> bool:
        """Whether rate or decay of the head are not those of the rest."""
        return self.backbone_lr_scale != 1 or self.backbone_weight_decay is not None


class EarlyStoppingConfig(Section):
    """When to give up before the last epoch; not before everything in `finetune.unfreeze` has begun."""

    patience: Count = 10
    """Evaluations in a row without progress after which training ends."""
    min_delta: NonNegative = 0.0
    """Least change of `evaluation.metric` that counts as progress."""


LESS_IS_BETTER = ("loss", "error")
MORE_IS_BETTER = ("top1", "top5", "acc", "precision", "recall", "f1", "AP", "AR")
"""What the names of metrics have in common whose direction is beyond doubt."""


def default_mode(metric: str) -> str:
    """Whether more (``max``) or less (``min``) of a metric is better."""
    return "min" if any(part in metric for part in LESS_IS_BETTER) else "max"


def wrong_direction(metric: str, mode: str) -> str:
    """What is wrong with ``mode`` (max or min) for a metric; empty if nothing is, or if its direction is not known."""
    right = "min" if any(part in metric for part in LESS_IS_BETTER) else None
    right = right or ("max" if any(part in metric for part in MORE_IS_BETTER) else mode)
    if right == mode:
        return ""
    return f"{mode} is wrong for '{metric}', of which {'more' if right == 'max' else 'less'} is better; remove it"


def metric_fault(config: "EvaluationConfig", measured: Collection[str], default: str) -> str:
    """What is wrong with the metric that decides; empty if nothing is.

    Args:
        measured: The metrics that there are.
        default: The one that decides where ``config`` names none.
    """
    if config.metric is not None and config.metric not in measured:
        return f"evaluation.metric: '{config.metric}' is not measured; there are {', '.join(measured)}"
    if config.mode is not None and (fault := wrong_direction(config.metric or default, config.mode)):
        return f"evaluation.mode: {fault}"
    return ""


class EvaluationConfig(Section):
    """When the model is evaluated during training, and on which weights."""

    every_epochs: Count = 1
    """Epochs between evaluations; the last step is always evaluated."""
    every_steps: Count | None = None
    """Steps between evaluations, instead of `every_epochs`."""
    batch_size: Count = 64
    """Samples in one forward pass; results do not depend on the number of ranks."""
    metric: str | None = None
    """Metric that decides which checkpoint is best (and early stopping, and plateau); null: the task's own."""
    mode: Literal["max", "min"] | None = None
    """Whether more or less of `metric` is better; null: less for losses, more for all others."""
    weights: Literal["auto", "model", "ema"] = "auto"
    """Weights to evaluate; auto: the moving average if there is one."""
    early_stopping: EarlyStoppingConfig | None = None
    """Stop when `metric` no longer improves; null: never."""

    @model_validator(mode="after")
    def _consistent(self) -> "EvaluationConfig":
        if self.metric is not None and self.mode is not None and (fault := wrong_direction(self.metric, self.mode)):
            raise ValueError(f"mode: {fault}")
        holds = self.every_steps is None
        refuse_idle(self, ["every_epochs"], needed="every_steps: null", holds=holds, deciders=["every_steps"])
        return self


class CheckpointConfig(Section):
    """When checkpoints are written besides each evaluation's, and how many are kept."""

    every_steps: Count | None = None
    """Optimizer steps between checkpoints; null: only at evaluations."""
    every_minutes: Positive | None = None
    """Minutes between checkpoints; null: only at evaluations."""
    keep: Annotated[int, Field(ge=2)] = 2
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
    sync_batchnorm: bool = False
    """Batch norm statistics over the whole micro-batch of all ranks (CUDA only; without effect on one rank)."""

    @model_validator(mode="after")
    def _no_idle_keys(self) -> "DistributedConfig":
        may_be_cuda = self.device != "cpu"
        needed = "device: auto or cuda"
        refuse_idle(self, ["sync_batchnorm"], needed=needed, holds=may_be_cuda, deciders=["device"])
        if self.backend == "nccl" and not may_be_cuda:
            raise IdleKeys("backend: nccl needs GPUs, and device is cpu; use gloo or auto", ["backend"], ["device"])
        return self


class RunConfig(Section):
    """The sections that every task has."""

    used_when_trained: ClassVar[tuple[str, ...]] = ()
    """A task's own settings that matter where a trained model is used."""

    experiment: ExperimentConfig = ExperimentConfig()
    """Name, place and seed of the run."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimizer, rate and decay."""
    schedule: ScheduleConfig = ScheduleConfig()
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
    def _rates_ordered(self) -> "RunConfig":
        rates = {"schedule.min_lr": self.schedule.min_lr, "schedule.warmup_lr": self.schedule.warmup_lr}
        for key, rate in rates.items():
            warms_up = self.schedule.warmup_epochs > 0 or bool(self.schedule.warmup_steps)
            if rate > self.optimizer.lr and (key != "schedule.warmup_lr" or warms_up):
                raise ValueError(f"{key} ({rate:g}) is above optimizer.lr ({self.optimizer.lr:g})")
        if self.evaluation.weights == "ema" and self.training.ema is None:
            raise ValueError("evaluation.weights is 'ema' but training.ema is not set (for example {decay: 0.9998})")
        return self

    @model_validator(mode="after")
    def _state_can_be_divided(self) -> "RunConfig":
        """The same on any number of ranks, so that what is tried on one also runs on many."""
        if self.training.shard == "optimizer" and self.optimizer.name in UNDIVIDED:
            raise ValueError(f"training.shard: {undivided(self.optimizer.name)}")
        return self
