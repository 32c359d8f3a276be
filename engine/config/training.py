"""The `training`, `finetune` and `evaluation` sections: how long and from what is trained, and how it is judged."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, field_serializer, field_validator, model_validator

from engine.config.paths import AbsolutePath
from engine.config.section import Batch, Count, NonNegative, Positive, Section, refuse_unused


class EmaConfig(Section):
    """Exponential moving average of the weights, updated once an optimizer step (timm's ModelEmaV3)."""

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.9998
    """Weight of the average so far in each update."""
    second_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Weight of a second average, which is kept and evaluated too, so that one can choose the better one afterwards by
    evaluation.weights; null: none."""
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
    global_batch_size: Batch = 128
    """Samples in one optimizer step, over all ranks and accumulation steps."""
    micro_batch_size: Batch | None = None
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
    """Keep images and weights in channels-last layout. auto: for convolutional models, which it makes faster."""
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
    def _one_length(cls, values: object) -> object:
        return cls._one_of(values, ("epochs", "steps"), default=30)


ALL_STAGES = "all"
"""Stands in `finetune.unfreeze` for every stage of the model."""


def nothing_new(stages: Sequence[str]) -> str:
    """Returns what is wrong with an epoch of `finetune.unfreeze` at which no stage begins to be trained."""
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
    (one that is called timm: `./timm`), for models named keras/... one of Keras's, one of our checkpoints, or the
    folder of one of our experiments, whose best checkpoint is taken. The classifier is replaced if classes differ, and
    a Vision Transformer's positions are interpolated if the images have another size. null: start from nothing."""
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
    def _no_unused_keys(self) -> "FinetuneConfig":
        if self.unfreeze is None and self.freeze_batchnorm != "always":
            refuse_unused(self, [("freeze_batchnorm", "unfreeze", ["unfreeze"])])
        return self

    @field_serializer("unfreeze", when_used="json")
    def _epochs_as_written(self, unfreeze: dict[float, list[str]] | None) -> dict[str, list[str]] | None:
        if unfreeze is None:
            return None
        return {str(int(epoch) if epoch.is_integer() else epoch): stages for epoch, stages in unfreeze.items()}

    @property
    def sets_head_apart(self) -> bool:
        """Tells whether rate or decay of the head are not those of the rest."""
        return self.backbone_lr_scale != 1 or self.backbone_weight_decay is not None


class EarlyStoppingConfig(Section):
    """When to give up before the last epoch; not before everything in `finetune.unfreeze` has begun."""

    patience: Count = 10
    """Evaluations in a row without progress after which training ends."""
    min_delta: NonNegative = 0.0
    """Least change of `evaluation.metric` that counts as progress."""


class EvaluationConfig(Section):
    """When the model is evaluated during training, and on which weights."""

    every_epochs: Count | None = None
    """Epochs between evaluations, 1 when neither this nor `every_steps` is given; the last step is always evaluated."""
    every_steps: Count | None = None
    """Steps between evaluations, instead of `every_epochs`: of both, that counts which a later file or the command line
    gives."""
    batch_size: Batch = 64
    """Samples in one forward pass; results do not depend on the number of ranks."""
    metric: str | None = None
    """Metric that decides which checkpoint is best (and early stopping, and plateau); null: the task's own."""
    mode: Literal["max", "min"] | None = None
    """Whether more or less of `metric` is better; null: as the task says, which knows it of nearly all."""
    weights: Literal["auto", "model", "ema", "second_ema"] = "auto"
    """Weights to evaluate; auto: the moving average if there is one. second_ema: that of training.ema.second_decay, for
    a trained model."""
    early_stopping: EarlyStoppingConfig | None = None
    """Stop when `metric` no longer improves; null: never."""

    @model_validator(mode="before")
    @classmethod
    def _one_rhythm(cls, values: object) -> object:
        return cls._one_of(values, ("every_epochs", "every_steps"), default=1)
