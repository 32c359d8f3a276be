"""The `augmentation` section: what training images go through at random. Null or 0 turns a thing off."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from engine.config.section import (
    Few,
    NonNegative,
    OnlyWith,
    PartOfOne,
    PartRange,
    PositiveRange,
    Probability,
    Section,
)

_NUMBER = r"\d+(\.\d+)?"
_RAND_SECTION = re.compile(rf"m\d+|n[1-9]\d*|p(0(\.\d+)?|1(\.0+)?)|mstd{_NUMBER}|mmax\d+|inc[01]|t(weights|3aw|3a)")
_LEAST = {"m": 0, "mmax": 0, "n": 1}
_AUGMIX_SECTION = re.compile(rf"m\d+|w[1-9]\d*|d[1-9]\d*|a{_NUMBER}|b[01]|mstd{_NUMBER}")
STRONGEST = 30
"""Magnitude of RandAugment beyond which no paper goes: three times timm's 10, at which images turn by 30 degrees."""
CLIPPED_AT = 10
"""Magnitude to which timm clips those of a policy without mmax."""
MOST_LAYERS = 14
"""Operations of the smallest set from which RandAugment draws none twice."""
_AUTO_POLICY = re.compile(rf"(v0r|v0|originalr|original|3a)(-mstd{_NUMBER})?")


def _rand_text(text: str) -> str:
    first, *sections = text.split("-")
    wrong = [section for section in sections if not _RAND_SECTION.fullmatch(section)]
    if first != "rand" or wrong:
        part = f"'{wrong[0]}' in '{text}'" if first == "rand" else f"'{text}'"
        raise ValueError(
            f"{part} is not understood; right is for example 'rand-m9-mstd0.5-inc1': 'rand', any of m (magnitude), "
            "n (layers), p (probability), mstd, mmax, inc0 or inc1, tweights, t3a or t3aw, joined by '-'"
        )
    given = rand_numbers(text)
    for key, most in (("m", STRONGEST), ("mmax", STRONGEST), ("n", MOST_LAYERS)):
        if given.get(key, 0) > most:
            raise ValueError(f"'{key}{given[key]}' in '{text}' is too much: {key} goes from {_LEAST[key]} to {most}")
    return text


def rand_numbers(text: str) -> dict[str, int]:
    """Returns magnitude, its upper bound and the layers that a RandAugment in timm's notation names."""
    return {key: int(number) for key, number in re.findall(r"-(m|mmax|n)(\d+)(?=-|$)", text)}


def _auto_text(text: str) -> str:
    if not _AUTO_POLICY.fullmatch(text):
        raise ValueError(
            f"'{text}' is not understood; right is one of v0, v0r, original, originalr and 3a, "
            "perhaps with a spread of the magnitude ('original-mstd0.5')"
        )
    return text


def _augmix_text(text: str) -> str:
    first, *sections = text.split("-")
    wrong = [section for section in sections if not _AUGMIX_SECTION.fullmatch(section)]
    if first != "augmix" or wrong:
        part = f"'{wrong[0]}' in '{text}'" if first == "augmix" else f"'{text}'"
        raise ValueError(
            f"{part} is not understood; right is for example 'augmix-m3-w3': 'augmix', any of m (magnitude), "
            "w (width), d (depth), a (alpha), b0 or b1 (blended) and mstd, joined by '-'"
        )
    if too_much := [
        section for section in sections if re.fullmatch(r"m\d+", section) and int(section[1:]) > CLIPPED_AT
    ]:
        raise ValueError(f"'{too_much[0]}' in '{text}' is too much: timm clips m, which goes from 0 to {CLIPPED_AT}")
    return text


class RandomResizedCropConfig(Section):
    """A random part of the image, stretched to the model's size."""

    scale: PartRange = (0.08, 1.0)
    """Least and largest part of the area."""
    ratio: PositiveRange = (0.75, 1.3333333333333333)
    """Least and largest width divided by height."""


class ColorJitterConfig(Section):
    """Random changes of colour, as torchvision's ColorJitter makes them."""

    brightness: NonNegative = 0.4
    """The factor is drawn from [1 - value, 1 + value]; 0 turns it off, here and below."""
    contrast: NonNegative = 0.4
    """The factor is drawn from [1 - value, 1 + value]."""
    saturation: NonNegative = 0.4
    """The factor is drawn from [1 - value, 1 + value]."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """The shift is drawn from [-value, value] of the colour circle."""


class AffineConfig(Section):
    """A random affine map about the image's middle, as torchvision's RandomAffine makes it."""

    degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    """The rotation is drawn from [-value, value]."""
    translate: tuple[Probability, Probability] = (0.1, 0.1)
    """Largest shift across and down, as parts of width and height, both ways."""
    scale: PositiveRange = (0.9, 1.1)
    """Least and largest magnification."""
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    """The horizontal shear in degrees is drawn from [-value, value]."""


class SharpnessConfig(Section):
    """A change of sharpness."""

    factor: NonNegative = 2.0
    """0 blurs, 1 changes nothing, 2 doubles the sharpness."""
    probability: Probability = 0.5
    """Probability that it is applied."""


class BlurConfig(Section):
    """Gaussian blur."""

    sigma: PositiveRange = (0.1, 2.0)
    """Least and largest standard deviation, in pixels of the model's input."""
    probability: Probability = 0.5
    """Probability that it is applied."""


class RandAugmentConfig(Section):
    """RandAugment (arXiv:1909.13719) as timm does it."""

    magnitude: Annotated[int, Field(ge=0, le=10)] = 9
    """Strength of the operations."""
    layers: Annotated[int, Field(ge=1, le=MOST_LAYERS)] = 2
    """Operations drawn for an image."""
    probability: Probability = 0.5
    """Probability that a drawn operation is applied."""
    magnitude_std: NonNegative = 0.5
    """Standard deviation of the magnitude."""
    increasing: bool = True
    """Use operations whose effect grows with the magnitude."""

    @property
    def text(self) -> str:
        """Returns the same in timm's notation."""
        return (
            f"rand-m{self.magnitude}-n{self.layers}-p{self.probability}-mstd{self.magnitude_std}"
            f"-inc{int(self.increasing)}"
        )


class RandomErasingConfig(Section):
    """Rectangles filled with noise (arXiv:1708.04896), as timm's `pixel` mode."""

    probability: Probability = 0.25
    """Probability that an image loses anything."""
    area: PartRange = (0.02, 0.3333333333333333)
    """Least and largest part of the image, all rectangles together."""
    min_aspect: PartOfOne = 0.3
    """Least ratio of a rectangle's sides."""
    count: Few = 1
    """Most rectangles; their number is drawn from 1 to this."""


UNCOVERING = ("rotation", "affine", "randaugment", "autoaugment", "augmix", "trivialaugment")
"""What may turn or move images, and fills the areas that it uncovers with the colour of the bars."""

MIXES = OnlyWith(("mixup", "cutmix"))


class AugmentationConfig(Section):
    """Random changes to training images, in the order in which they are made."""

    random_resized_crop: RandomResizedCropConfig | None = RandomResizedCropConfig()
    """A random part of the image; null: the image is resized as for evaluation."""
    shift: Annotated[int, Field(ge=0, le=1000)] = 0
    """Largest random shift in pixels of the model's input, both ways; what comes in is black."""
    horizontal_flip: Probability = 0.5
    """Probability of mirroring left and right."""
    vertical_flip: Probability = 0.0
    """Probability of mirroring top and bottom."""
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """The angle in degrees is drawn from [-value, value]."""
    affine: AffineConfig | None = None
    """A random affine map."""
    color_jitter: ColorJitterConfig | None = None
    """Random brightness, contrast, saturation and hue."""
    sharpness: SharpnessConfig | None = None
    """A change of sharpness."""
    blur: BlurConfig | None = None
    """Gaussian blur."""
    randaugment: Annotated[str, AfterValidator(_rand_text)] | RandAugmentConfig | None = None
    """RandAugment in timm's notation (`rand-m9-mstd0.5-inc1`) or as keys."""
    autoaugment: Annotated[str, AfterValidator(_auto_text)] | None = None
    """AutoAugment (arXiv:1805.09501): timm's policies v0, v0r, original, originalr or 3a."""
    augmix: Annotated[str, AfterValidator(_augmix_text)] | None = None
    """AugMix (arXiv:1912.02781) in timm's notation (`augmix-m3-w3`), without its loss."""
    trivialaugment: bool = False
    """TrivialAugment (arXiv:2103.10158) as torchvision's TrivialAugmentWide."""
    random_erasing: RandomErasingConfig | None = None
    """Rectangles of noise."""
    mixup: NonNegative | None = None
    """Mixup (arXiv:1710.09412): its Beta distribution's alpha, for example 0.8."""
    cutmix: NonNegative | None = None
    """CutMix (arXiv:1905.04899): its Beta distribution's alpha, for example 1.0."""
    mixing_probability: Annotated[Probability, MIXES] = 1.0
    """Probability that Mixup or CutMix is applied."""
    cutmix_probability: Annotated[Probability, OnlyWith(("mixup",)), OnlyWith(("cutmix",))] = 0.5
    """Where both are on: the probability that it is CutMix."""
    mixing_mode: Annotated[Literal["batch", "pair"], MIXES] = "batch"
    """What shares one random strength: the whole global batch, or two images."""

    @model_validator(mode="after")
    def _one_policy(self) -> "AugmentationConfig":
        used = [name for name in ("randaugment", "autoaugment", "augmix", "trivialaugment") if getattr(self, name)]
        if len(used) > 1:
            raise ValueError(f"{' and '.join(used)} are alternatives; keep one and set the others to null or false")
        return self

    def questions(self) -> list[str]:
        """Returns what is possible, and seldom meant."""
        if not isinstance(self.randaugment, str):
            return []
        given = rand_numbers(self.randaugment)
        magnitude, most = given.get("m", 0), given.get("mmax", 0) or CLIPPED_AT
        if magnitude <= most:
            return []
        text = f"augmentation.randaugment: timm clips m{magnitude} to {most}"
        return [f"{text}, so that {self.randaugment} is as strong as with m{most}; mmax{magnitude} lets it be stronger"]

    @property
    def uncovers(self) -> bool:
        """Returns whether images are turned or moved, which leaves areas to fill."""
        return any(getattr(self, key) for key in UNCOVERING)

    @property
    def mixes(self) -> bool:
        """Returns whether images are mixed at all."""
        return bool(self.mixup or self.cutmix) and self.mixing_probability > 0
