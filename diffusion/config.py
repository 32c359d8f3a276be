"""The typed configuration of a diffusion run."""

from typing import ClassVar

from pydantic import ValidationInfo, model_validator

from diffusion.data.sections import AugmentationConfig, DiffusionDataConfig
from diffusion.model.sections import SwinUNetConfig
from diffusion.sections import DiffusionEvaluationConfig, DiffusionSection
from engine.config.model_names import check_published
from engine.config.run import RunConfig
from engine.config.section import refuse_unused


class DiffusionConfig(RunConfig):
    """Everything a diffusion run depends on."""

    used_when_trained: ClassVar[tuple[str, ...]] = (
        "diffusion.sampling",
        "evaluation.judge",
        "evaluation.nearest_train",
        "evaluation.reference",
        "evaluation.samples",
    )
    locations: ClassVar[tuple[str, ...]] = (*RunConfig.locations, "data.root", "data.csv", "evaluation.judge")
    only_to_train: ClassVar[tuple[str, ...]] = ("data.drop_last", "data.sampling", "data.oversample")

    model: SwinUNetConfig
    """What is trained."""
    data: DiffusionDataConfig
    """Images, and perhaps their classes."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """Random changes to training images."""
    diffusion: DiffusionSection = DiffusionSection()
    """How noise is added, what the network is asked for, and how images are sampled."""
    evaluation: DiffusionEvaluationConfig = DiffusionEvaluationConfig()
    """When and on which weights to evaluate, and what to sample then."""

    @property
    def tells_class(self) -> bool:
        """Tells whether the network is told the class of an image."""
        labelled = self.data.source != "images" and not self.data.multi_label
        return labelled and self.diffusion.conditioning != "none"

    @model_validator(mode="after")
    def _has_classes(self) -> "DiffusionConfig":
        if self.tells_class or self.diffusion.conditioning == "none":
            return self
        source = self.data.source
        what = "has no classes" if source == "images" else "may have several labels an image"
        if self.diffusion.conditioning == "class":
            raise ValueError(f"diffusion.conditioning: class: data.source {source} {what}; use none")
        if self.diffusion.sampling.guidance != 1:
            raise ValueError(f"diffusion.sampling.guidance: data.source {source} {what}, so nothing guides; use 1")
        refuse_unused(self, [("diffusion.label_dropout", "one class an image", ["data.source"])])
        return self

    @model_validator(mode="after")
    def _has_bars(self) -> "DiffusionConfig":
        if self.data.resize != "pad":
            refuse_unused(self, [("data.pad_fill", "data.resize: pad", ["data.resize"])])
        return self

    @model_validator(mode="after")
    def _fits_the_images(self) -> "DiffusionConfig":
        data = self.data
        try:
            shape = self.model.shape(data.size, data.channels)
        except ValueError as error:
            raise ValueError(f"data.image_size: {data.image_size} does not fit the model: {error}") from None
        smallest, last = min(data.size), len(shape.depths)
        if last > 1 and smallest <= shape.strides[-2]:
            raise ValueError(
                f"data.image_size: at the last of {last} stages nothing is left to merge of {data.image_size} pixels "
                f"(model.patch_size {shape.patch_size}); use more than {shape.strides[-2]} pixels, or fewer "
                "model.depths"
            )
        return self

    @model_validator(mode="after")
    def _weights_are_published(self, info: ValidationInfo) -> "DiffusionConfig":
        if self.finetune.weights == "timm":
            check_published("model.name", self.model.name, None, False)
        return self


class SampledConfig(DiffusionConfig):
    """What a run depends on where images are sampled from it: no image is read, and nothing measured."""

    used_when_trained: ClassVar[tuple[str, ...]] = ("diffusion.sampling",)
    only_to_train: ClassVar[tuple[str, ...]] = ("data",)
