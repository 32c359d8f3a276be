from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from detection.augmentation.mosaic import mosaic
from detection.augmentation.sections import AugmentationConfig, PhotometricConfig, ZoomOutConfig
from detection.augmentation.transforms import EvalReader, TrainReader, TrainTransform, distorted, zoomed_out
from detection.data.sample import CROWD, Sample, collate, read_sample
from detection.data.sections import ShapesData
from detection.data.synthetic_shapes import ShapeImages
from engine.data.batch_plan import Draw
from engine.images.lazy_image import LazyImage, load_image
from engine.images.transforms import EvalTransform, Resizer
from tests.detection.coco_files import box, coco_data, write_split
from tests.detection.small import prepared
from tests.memory import MB, forget_peak, peak
from tests.photograph import photograph

MEAN = (0.5, 0.4, 0.3)
NONE: dict = {"photometric": None, "zoom_out": None, "iou_crop": None, "horizontal_flip": 0.0}
IMAGES = ShapeImages(
    ShapesData.model_validate(
        {"source": "shapes", "train_images": 12, "canvas_size": (60, 80), "background": "noise", "scale": (0.2, 0.5)}
    ),
    "train",
)


def reader(size=(48, 64), seed=0, **augmentation) -> TrainReader:
    return TrainReader(IMAGES, prepared(size, mean=MEAN), AugmentationConfig.model_validate(augmentation), seed)


def black_with(*boxes: tuple[int, int, int, int], labels: list[int] | None = None, size=(80, 60)) -> Sample:
    """A black image, the boxes on it in colours 100, 101, ..."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    for number, (left, top, right, bottom) in enumerate(boxes):
        pixels[top:bottom, left:right] = 100 + 20 * number
    classes = labels if labels is not None else list(range(len(boxes)))
    return Sample(LazyImage.of(pixels), torch.tensor(boxes).float().view(-1, 4), torch.tensor(classes).long())


def transformed(sample: Sample, seed: int = 0, size=(60, 80), **augmentation) -> dict:
    given = AugmentationConfig.model_validate({**NONE, **augmentation})
    return TrainTransform(prepared(size, "nearest", MEAN), given)(sample, seed)


def assert_boxes_fit(found: dict, sample: Sample, tolerance: float = 1.6) -> None:
    """Every box still lies where its colour is."""
    height, width = found["image"].shape[1:]
    for corner, label in zip(found["boxes"], found["labels"].tolist(), strict=True):
        rows, columns = (found["image"][0] == 100 + 20 * label).nonzero(as_tuple=True)
        seen = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert (corner * torch.tensor([width, height] * 2) - seen).abs().max() <= tolerance


EVERYTHING = {"mosaic": {"probability": 0.6}, "vertical_flip": 0.3}


@pytest.mark.parametrize("augmentation", [{}, EVERYTHING])
def test_a_sample_follows_from_seed_epoch_and_position_alone(augmentation):
    draws = [Draw(index, epoch, position) for epoch in (0, 1) for position, index in enumerate((3, 3, 0, 7))]
    first = [reader(**augmentation)[draw] for draw in draws]
    torch.manual_seed(9), np.random.seed(9)
    again = [reader(**augmentation)[draw] for draw in reversed(draws)][::-1]
    for one, other in zip(first, again, strict=True):
        assert all(torch.equal(torch.as_tensor(one[name]), torch.as_tensor(other[name])) for name in one)
    assert len({sample["image"].numpy().tobytes() for sample in first}) == len(draws)
    assert not torch.equal(reader(seed=1, **augmentation)[draws[0]]["image"], first[0]["image"])


def test_the_global_generators_are_left_alone():
    torch.manual_seed(1), np.random.seed(1)
    expected = float(torch.rand(())), float(np.random.random())
    torch.manual_seed(1), np.random.seed(1)
    _ = reader(**EVERYTHING)[Draw(2, 0, 5)]
    assert (float(torch.rand(())), float(np.random.random())) == expected


def test_samples_are_whole():
    for position in range(60):
        sample = reader(**EVERYTHING)[Draw(position % 12, 0, position)]
        assert sample["image"].shape == (3, 48, 64) and sample["image"].dtype == torch.uint8
        assert sample["image"].is_contiguous()
        boxes, labels = sample["boxes"], sample["labels"]
        assert boxes.dtype == torch.float32 and boxes.shape == (len(labels), 4) and type(boxes) is torch.Tensor
        assert (boxes >= 0).all() and (boxes <= 1).all() and (boxes[:, 2:] > boxes[:, :2]).all()
        assert labels.dtype == torch.int64 and (labels >= 0).all()


def test_without_augmentation_training_sees_what_evaluation_sees():
    own = reader(**NONE)[Draw(4, 0, 0)]
    evaluated = EvalReader(IMAGES, EvalTransform(prepared((48, 64))))[Draw(4, 0, 4)]
    assert torch.equal(own["image"], evaluated["image"]) and own["index"] == evaluated["index"] == 4
    sample = read_sample(IMAGES, 4)
    torch.testing.assert_close(own["boxes"], sample.boxes / torch.tensor([80.0, 60.0, 80.0, 60.0]))
    assert torch.equal(own["labels"], sample.labels)


@pytest.mark.parametrize(
    "augmentation",
    [
        {"horizontal_flip": 1.0},
        {"vertical_flip": 1.0},
        {"zoom_out": {"probability": 1.0, "largest": 2.0}},
        {"iou_crop": {"scale": (0.5, 0.9)}},
        {"zoom_out": {}, "iou_crop": {}, "horizontal_flip": 0.5},
    ],
)
def test_boxes_go_where_their_objects_go(augmentation):
    sample = black_with((5, 8, 25, 30), (40, 20, 75, 55))
    seen, changed = 0, 0
    for seed in range(30):
        found = transformed(sample, seed, (120, 160), **augmentation)
        assert_boxes_fit(found, sample, tolerance=3.5)
        seen += len(found["labels"])
        changed += not torch.equal(found["image"], transformed(sample, seed, (120, 160))["image"])
    assert seen >= 20 and changed >= 10


def test_zooming_out_shows_the_mean_colour():
    found = transformed(black_with((5, 8, 25, 30)), 3, zoom_out={"probability": 1.0})
    corners = {tuple(found["image"][:, y, x].tolist()) for y in (0, -1) for x in (0, -1)}
    assert tuple(round(255 * channel) for channel in MEAN) in corners


def test_nothing_that_is_made_of_a_large_image_is_large():
    """Zoomed out by 4, an image of 12 million pixels would take 576 MB."""
    boxes = ((500, 800, 2500, 3000), (2600, 400, 3900, 2000))
    sample = black_with(*boxes, size=(4000, 3000))
    transform = TrainTransform(prepared((60, 80)), AugmentationConfig(photometric=None))
    assert transform._frame(4000, 3000) == (267, 200) and transform._frame(130, 100) == (130, 100)
    sizes, resizer = [], transform._resizer
    transform._resizer = lambda image, *size_and_part: sizes.append(size_and_part[:2]) or resizer(image, *size_and_part)
    for seed in range(20):
        assert transform(sample, seed)["image"].shape == (3, 60, 80)
    assert len(sizes) == 20 and all(height <= 60 and width <= 80 for height, width in sizes)


def test_colours_change_and_boxes_do_not():
    sample = black_with((5, 8, 25, 30))
    found = transformed(sample, 1, photometric={"probability": 1.0})
    assert not torch.equal(found["image"], transformed(sample)["image"])
    assert torch.equal(found["boxes"], transformed(sample)["boxes"])


def test_a_image_without_objects_is_not_searched_for_a_crop():
    empty = Sample(LazyImage.of(Image.new("RGB", (80, 60))), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    for seed in range(5):
        found = transformed(empty, seed, zoom_out={}, iou_crop={"overlaps": []})
        assert found["boxes"].shape == (0, 4) and found["labels"].shape == (0,) and found["ignored"].shape == (0, 4)


def test_crowds_travel_as_regions_and_small_boxes_are_left_out(tmp_path):
    boxes = [box(1, 101, [4, 3, 20, 15], iscrowd=1), box(2, 101, [10, 10, 0.5, 10]), box(3, 101, [30, 20, 40, 40])]
    write_split(tmp_path, "train", boxes)
    from detection.data.coco import read_split

    images, _ = read_split(coco_data(tmp_path), "train")
    found = TrainTransform(prepared((30, 40), "nearest"), AugmentationConfig(**NONE))(read_sample(images, 0), 0)
    torch.testing.assert_close(found["ignored"], torch.tensor([[0.1, 0.1, 0.6, 0.6]]))
    torch.testing.assert_close(found["boxes"], torch.tensor([[0.75, 2 / 3, 1.0, 1.0]]))  # clipped to the image


def test_a_mosaic_puts_each_image_and_its_boxes_into_a_quarter():
    samples = [black_with((10, 10, 70, 50), labels=[n]) for n in range(4)]
    colours = [LazyImage.of(np.asarray(s.image) // 5 * (n + 5)) for n, s in enumerate(samples)]
    samples = [Sample(colour, s.boxes, s.labels) for colour, s in zip(colours, samples, strict=True)]
    made = mosaic(samples, (120, 160), (0.5, 0.5), 0.3, Resizer("nearest", exact=True))
    assert made.image.size == (160, 120) and made.labels.tolist() == [0, 1, 2, 3]
    pixels = np.asarray(made.image)[..., 0]
    for number, corner in enumerate(made.boxes.tolist()):
        rows, columns = np.nonzero(pixels == 20 * (number + 5))
        assert corner == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_what_a_mosaic_cuts_off_is_neither_object_nor_background():
    samples = [black_with((0, 0, 20, 60), (5, 5, 75, 55)) for _ in range(4)]
    made = mosaic(samples, (120, 160), (0.3, 0.5), 0.5)  # the left quarters keep the right 48 of 80 columns
    left = made.boxes[:, 2] <= 48
    assert left.sum() == 2 and made.labels[left].tolist() == [1, 1]  # the first object of each is gone
    assert made.boxes[left, 0].tolist() == [0.0, 0.0]
    kept = mosaic(samples, (120, 160), (0.3, 0.5), 0.7)
    assert kept.labels[left].tolist() == [CROWD, CROWD] and torch.equal(kept.boxes, made.boxes)


def test_collating_fills_up_with_rows_that_are_masked():
    samples = [
        transformed(black_with(*boxes)) | {"index": n}
        for n, boxes in enumerate([[(5, 8, 25, 30)], [], [(5, 8, 25, 30)] * 3])
    ]
    batch = collate(samples)
    assert batch["image"].shape == (3, 3, 60, 80) and batch["boxes"].shape == (3, 3, 4)
    assert batch["mask"].tolist() == [[True, False, False], [False] * 3, [True] * 3]
    assert batch["labels"].tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 2]]
    assert torch.equal(batch["boxes"][2, 1], samples[2]["boxes"][1]) and not batch["boxes"][1].any()
    assert batch["ignored"].shape == (3, 0, 4) and batch["index"].tolist() == [0, 1, 2]
    empty = collate(samples[1:2])
    assert empty["boxes"].shape == (1, 1, 4) and not empty["mask"].any()
    crowded = collate([transformed(black_with((5, 8, 25, 30), labels=[CROWD])) | {"index": 0}, samples[0]])
    assert crowded["ignored"].shape == (2, 1, 4) and crowded["ignored"][0].any() and not crowded["ignored"][1].any()


def test_readers_can_be_sent_to_workers_that_are_spawned():
    again = pickle.loads(pickle.dumps(reader(**EVERYTHING)))
    assert torch.equal(again[Draw(1, 0, 2)]["image"], reader(**EVERYTHING)[Draw(1, 0, 2)]["image"])


class Strips:
    """Images of one kind, with one box."""

    def __init__(self, width, height):
        self._size = (width, height)
        part = [0.25 * width, 0, 0.75 * width, height] if width > height else [0, 0.25 * height, width, 0.75 * height]
        self.annotations = replace(IMAGES.annotations, sizes=np.array([self._size]), starts=np.array([0, 1]))
        self.annotations = replace(self.annotations, boxes=np.array([part]), labels=np.zeros(1, np.int64))
        self.annotations = replace(self.annotations, crowd=np.zeros(1, bool), areas=np.ones(1))

    def __len__(self):
        return 1

    def image(self, index):
        return LazyImage.of(np.full((self._size[1], self._size[0], 3), 255, np.uint8))


@pytest.mark.parametrize("size", [(1, 200_000), (200_000, 1), (30, 200_000)])
@pytest.mark.parametrize("augmentation", [{}, {"mosaic": {"probability": 1.0}}, {"zoom_out": {"probability": 1.0}}])
def test_nothing_that_is_made_of_a_strip_is_huge(size, augmentation):
    given = AugmentationConfig.model_validate(augmentation)
    strips = TrainReader(Strips(*size), prepared((48, 64), mean=MEAN), given, seed=0)
    before = forget_peak()
    for position in range(10):
        sample = strips[Draw(0, 0, position)]
        assert sample["image"].shape == (3, 48, 64)
        assert (sample["boxes"] >= 0).all() and (sample["boxes"] <= 1).all()
    assert peak() - before < 5 * 3 * size[0] * size[1] + 30 * MB, "the strip itself, and little more"


def test_only_the_longer_side_of_a_strip_counts_as_shorter():
    transform = TrainTransform(prepared((48, 64)), AugmentationConfig())
    for size, after in (((200_000, 3), (8 * 128, 3)), ((3, 200_000), (3, 8 * 96)), ((1000, 90), (1000, 90))):
        assert transform._frame(*size) == after


@pytest.mark.parametrize("decode", ["fast", "exact"])
def test_a_jpeg_that_is_decoded_at_reduced_size_shows_the_same_with_the_same_boxes(tmp_path, decode):
    sample = black_with((100, 200, 500, 900), (600, 100, 1100, 700), size=(1200, 1000))
    sample.image.pillow().save(tmp_path / "a.jpg", quality=95)
    stored = replace(sample, image=load_image(tmp_path / "a.jpg"))
    given = AugmentationConfig.model_validate({**NONE, "zoom_out": {}, "iou_crop": {}})
    transform = TrainTransform(replace(prepared((120, 160)), decode=decode), given)
    for seed in range(20):
        found, expected = transform(stored, seed), transform(sample, seed)
        assert torch.equal(found["labels"], expected["labels"])
        assert (found["image"].float() - expected["image"].float()).abs().mean() < 1.5
        assert (found["boxes"] - expected["boxes"]).abs().max() < 0.005


def test_colours_are_drawn_and_changed_as_torchvision_does():
    config = PhotometricConfig(probability=0.7)
    bounds = (config.brightness, config.contrast, config.saturation, (-config.hue, config.hue))
    theirs = v2.RandomPhotometricDistort(*bounds, 0.7)
    pixels, off = photograph(), []
    for seed in range(30):
        torch.manual_seed(seed)
        found = distorted(pixels, config)
        torch.manual_seed(seed)
        expected = np.asarray(theirs(Image.fromarray(pixels))).astype(int)
        off.append(np.abs(found - expected).mean())
    assert np.mean(off) < 0.5 and max(off) < 1.5


def test_the_view_is_zoomed_out_as_torchvision_does_it():
    theirs = v2.RandomZoomOut(0, (1.0, 3.0), 0.8)
    boxes = tv_tensors.BoundingBoxes(torch.zeros(1, 4), format="XYXY", canvas_size=(60, 80))
    for seed in range(20):
        torch.manual_seed(seed)
        view = zoomed_out((80, 60), ZoomOutConfig(largest=3.0, probability=0.8))
        torch.manual_seed(seed)
        found = theirs({"image": torch.zeros(3, 60, 80), "boxes": boxes})
        left, top, right, bottom = view.box
        assert (bottom - top, right - left) == found["boxes"].canvas_size
        assert found["boxes"].tolist() == [[-left, -top] * 2]
