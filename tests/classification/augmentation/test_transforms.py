from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from classification.augmentation.sections import AugmentationConfig, RandAugmentConfig
from classification.augmentation.transforms import TrainTransform
from engine.images.lazy_image import LazyImage
from engine.images.preprocessing import Preprocessing
from engine.images.transforms import EvalTransform
from engine.seed import derive

NONE = {"random_resized_crop": None, "horizontal_flip": 0.0}


def preprocessing(height=32, width=32, **keys) -> Preprocessing:
    values = {"resize": "crop", "crop_pct": 1.0, "interpolation": "bicubic"}
    return Preprocessing(height, width, **{**values, **keys}, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))


def photo(width=90, height=60) -> LazyImage:
    """Smooth colours, different everywhere."""
    y, x = np.mgrid[:height, :width]
    channels = [255 * x / width, 255 * y / height, 127 + 127 * np.sin(x / 7 + y / 11)]
    return LazyImage.of(np.stack(channels, 2).astype(np.uint8))


def plain(mode, size, colour) -> LazyImage:
    return LazyImage.of(Image.new(mode, size, colour))


def train(image=None, seed=0, size=32, **augmentation) -> torch.Tensor:
    transform = TrainTransform(preprocessing(size, size), AugmentationConfig(**augmentation))
    return transform(image or photo(), derive(seed))


ALL = {
    "random_erasing": {"probability": 1.0},
    "vertical_flip": 0.5,
    "color_jitter": {"hue": 0.1},
    "shift": 3,
    "rotation": 10,
    "affine": {"degrees": 5, "shear": 3},
    "sharpness": {},
    "blur": {},
}


def augmentation(**keys) -> AugmentationConfig:
    return AugmentationConfig.model_validate(keys)


@pytest.mark.parametrize(
    "policy",
    [
        {},
        {"randaugment": "rand-m9-mstd0.5-inc1"},
        {"randaugment": "rand-m7-n3-tweights"},
        {"randaugment": RandAugmentConfig()},
        {"autoaugment": "original-mstd0.5"},
        {"autoaugment": "3a"},
        {"augmix": "augmix-m5-w3"},
        {"trivialaugment": True},
    ],
)
@pytest.mark.parametrize("interpolation", ["bicubic", "lanczos"])
def test_augmentation_follows_from_the_seed_alone(policy, interpolation):
    transform = TrainTransform(preprocessing(interpolation=interpolation), augmentation(**ALL, **policy))
    first = [transform(photo(), seed) for seed in range(12)]
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)
    again = [transform(photo(), seed) for seed in reversed(range(12))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({image.numpy().tobytes() for image in first}) == 12
    assert all(image.dtype == torch.uint8 and image.shape == (3, 32, 32) for image in first)
    assert all(image.is_contiguous() for image in first)


@pytest.mark.parametrize("policy", [{"randaugment": "rand-m9-n1-mstd0.5-inc1"}, {"trivialaugment": True}])
def test_what_a_policy_uncovers_has_the_colour_of_the_bars(policy):
    """An image of that colour alone stays one of a single colour, whichever operations are drawn."""
    ready = preprocessing(resize="pad", pad_fill=(200, 30, 90))
    transform = TrainTransform(ready, augmentation(**{**NONE, **policy}))
    bare = plain("RGB", (32, 32), ready.fill)
    drawn = [transform(bare, seed) for seed in range(60)]
    assert all(len(torch.unique(image.flatten(1), dim=1).T) == 1 for image in drawn)
    assert len({image.numpy().tobytes() for image in drawn}) > 5, "no operation has changed the colour"


def test_augmentation_leaves_the_global_generators_alone():
    def draws():
        return random.random(), float(np.random.random()), float(torch.rand(()))

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draws()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    train(randaugment="rand-m9-mstd0.5-inc1", **ALL)
    assert draws() == expected


def test_without_augmentation_training_sees_what_evaluation_sees():
    for size in ((32, 32), (20, 44)):
        transform = TrainTransform(preprocessing(*size), AugmentationConfig(**NONE))
        assert torch.equal(transform(photo(), 3), EvalTransform(preprocessing(*size))(photo()))


@pytest.mark.parametrize("flip", ["horizontal_flip", "vertical_flip"])
def test_flips(flip):
    upright = train(**NONE)
    found = train(**{**NONE, flip: 1.0})
    assert torch.equal(found, upright.flip(2 if flip == "horizontal_flip" else 1))
    share = np.mean([not torch.equal(train(seed=k, **{**NONE, flip: 0.3}), upright) for k in range(300)])
    assert share == pytest.approx(0.3, abs=0.08)


def test_shifts_move_the_image_by_up_to_so_many_pixels_and_fill_with_black():
    upright = train(**NONE).long() + 1  # so that black is no colour of the image
    image = LazyImage.of((upright.permute(1, 2, 0)).clamp(max=255).to(torch.uint8).numpy())
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    padded = torch.zeros(3, 36, 36, dtype=torch.uint8)
    padded[:, 2:34, 2:34] = values
    windows = {padded[:, y : y + 32, x : x + 32].numpy().tobytes(): (y, x) for y in range(5) for x in range(5)}
    found = {windows[train(image, seed=k, **NONE, shift=2).numpy().tobytes()] for k in range(200)}
    assert len(found) == 25


def test_random_resized_crop_keeps_to_its_scale_and_ratio():
    transform = TrainTransform(
        preprocessing(64, 64),
        augmentation(horizontal_flip=0.0, random_resized_crop={"scale": (0.25, 0.25), "ratio": (1.0, 1.0)}),
    )
    for seed in range(20):
        red = transform(photo(128, 128), seed)[0].float()
        span = red[:, -1].mean() - red[:, 0].mean()  # red grows from left to right by 255 over the whole image
        assert float(span) == pytest.approx(127, abs=6)


@pytest.mark.parametrize("size", [(37, 90), (90, 37), (64, 64), (500, 20), (7, 9)])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
def test_evaluation_equals_torchvisions_resize_and_crop(size, crop_pct):
    expected = v2.Compose(
        [v2.Resize(int(32 / crop_pct), v2.InterpolationMode.BICUBIC), v2.CenterCrop(32), v2.PILToTensor()]
    )
    assert torch.equal(EvalTransform(preprocessing(crop_pct=crop_pct))(photo(*size)), expected(photo(*size).pillow()))


@pytest.mark.parametrize("target", [(24, 48), (48, 24)])
@pytest.mark.parametrize("size", [(37, 90), (90, 37), (5, 5)])
def test_evaluation_at_any_shape_fills_it(target, size):
    white = plain("RGB", size, "white")
    for resize in ("crop", "squash"):
        found = EvalTransform(preprocessing(*target, resize=resize, crop_pct=0.9))(white)
        assert found.shape == (3, *target)
        assert int(found.min()) == 255, "nothing is padded"


def test_squash_keeps_all_of_the_image():
    found = EvalTransform(preprocessing(resize="squash", crop_pct=0.5))(photo())
    expected = np.asarray(photo().pillow().resize((32, 32), Image.Resampling.BICUBIC))
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)


def test_erasing_happens_only_where_asked():
    plain = [train(seed=k, **NONE) for k in range(40)]
    found = [train(seed=k, **NONE, random_erasing={"probability": 0.5}) for k in range(40)]
    untouched = sum(torch.equal(a, b) for a, b in zip(plain, found, strict=True))
    assert 8 < untouched < 32


def test_the_interpolation_asked_for_is_used():
    found = {name: EvalTransform(preprocessing(interpolation=name))(photo()) for name in ("nearest", "bilinear")}
    for name, tensor in found.items():
        resized = photo().pillow().resize((48, 32), Image.Resampling[name.upper()]).crop((8, 0, 40, 32))
        assert np.array_equal(tensor.permute(1, 2, 0).numpy(), np.asarray(resized))


@pytest.mark.parametrize("size", [(90, 60), (60, 90), (64, 64), (500, 3), (3, 500), (7, 9)])
@pytest.mark.parametrize("target", [(24, 48), (48, 24), (32, 32)])
def test_padding_keeps_all_of_the_image_in_its_proportions(size, target):
    height, width = target
    transform = EvalTransform(preprocessing(*target, resize="pad", pad_fill=(1, 2, 3)))
    found = transform(plain("RGB", size, "white"))
    assert found.shape == (3, *target)
    inside = (found == 255).all(dim=0)
    rows, columns = inside.any(dim=1).sum().item(), inside.any(dim=0).sum().item()
    assert inside.sum() == rows * columns
    scale = min(height / size[1], width / size[0])
    assert (rows, columns) == (max(1, round(size[1] * scale)), max(1, round(size[0] * scale)))
    assert rows == height or columns == width
    assert (found.permute(1, 2, 0)[~inside] == torch.tensor([1, 2, 3])).all()
    top, left = inside.any(dim=1).int().argmax().item(), inside.any(dim=0).int().argmax().item()
    assert (top, left) == ((height - rows) // 2, (width - columns) // 2), "in the middle"


def test_bars_have_the_mean_colour_or_repeat_the_edge():
    image = photo(60, 30)
    mean = EvalTransform(preprocessing(resize="pad"))(image)
    assert (mean[:, :8] == 128).all() and (mean[:, -8:] == 128).all()
    edge = EvalTransform(preprocessing(resize="pad", pad_fill="edge"))(image)
    assert torch.equal(edge[:, 8:24], mean[:, 8:24])
    assert (edge[:, :8] == edge[:, 8:9]).all() and (edge[:, 24:] == edge[:, 23:24]).all()


def test_training_pads_as_evaluation_does():
    given = preprocessing(resize="pad", pad_fill="edge")
    assert torch.equal(TrainTransform(given, AugmentationConfig(**NONE))(photo(), 3), EvalTransform(given)(photo()))


@pytest.mark.parametrize(("pad_fill", "colour"), [("mean", 128), ("edge", 128), ((7, 7, 7), 7)])
@pytest.mark.parametrize("keys", [{"rotation": 45}, {"affine": {"degrees": 45, "scale": (0.5, 0.6)}}])
def test_what_turning_uncovers_is_filled(keys, pad_fill, colour):
    transform = TrainTransform(preprocessing(pad_fill=pad_fill), augmentation(**NONE, **keys))
    corners = [transform(plain("RGB", (40, 40), "white"), seed)[:, 0, 0] for seed in range(20)]
    assert sum(bool((corner == colour).all()) for corner in corners) > 10


def test_rotation_stays_within_its_angle():
    marked = np.zeros((65, 65, 3), np.uint8)
    marked[:5, 30:35] = 255
    transform = TrainTransform(preprocessing(65, 65, pad_fill=(0, 0, 0)), augmentation(**NONE, rotation=30))
    angles = []
    for seed in range(60):
        y, x = np.argwhere(transform(LazyImage.of(marked), seed)[0].numpy() > 128).mean(axis=0) - 32
        angles.append(np.degrees(np.arctan2(x, -y)))
    assert max(map(abs, angles)) < 32 and min(angles) < -20 and max(angles) > 20


def spread(tensor: torch.Tensor) -> float:
    """How much neighbours differ."""
    return float(tensor.float().diff(dim=2).abs().mean())


@pytest.mark.parametrize("keys", [{"sharpness": {"factor": 3}}, {"blur": {"sigma": (1.0, 2.0)}}])
def test_sharpness_and_blur_are_applied_as_often_as_asked(keys):
    rng = np.random.default_rng(0)
    image = LazyImage.of(rng.integers(60, 190, (32, 32, 3), np.uint8))
    plain = train(image, **NONE)
    (name, given), *_ = keys.items()
    found = [train(image, seed, **NONE, **{name: {**given, "probability": 0.4}}) for seed in range(200)]
    changed = [one for one in found if not torch.equal(one, plain)]
    assert len(changed) / 200 == pytest.approx(0.4, abs=0.1)
    assert all((spread(one) > spread(plain)) == (name == "sharpness") for one in changed)


def test_blur_of_a_image_smaller_than_its_reach():
    assert train(size=4, **NONE, blur={"sigma": (5.0, 9.0), "probability": 1.0}).shape == (3, 4, 4)


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1)])
@pytest.mark.parametrize("ratio", [(0.1, 0.3), (0.75, 1.33), (3.0, 5.0)])
def test_a_strip_is_cropped_at_random_too(size, ratio):
    found = train(plain("RGB", size, "white"), random_resized_crop={"ratio": ratio})
    assert found.shape == (3, 32, 32) and int(found.min()) == 255
