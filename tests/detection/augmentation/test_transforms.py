from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from detection.augmentation.mosaic import mosaic
from detection.augmentation.sections import AugmentationConfig
from detection.augmentation.transforms import EvalReader, TrainReader, TrainTransform, shrunk
from detection.data.sample import CROWD, Sample, collate, read_sample
from detection.data.sections import ShapesData
from detection.data.synthetic_shapes import ShapeImages
from engine.data.batch_plan import Draw
from engine.images.transforms import EvalTransform
from tests.detection.coco_files import box, coco_data, write_split
from tests.detection.small import prepared

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
    return Sample(Image.fromarray(pixels), torch.tensor(boxes).float().view(-1, 4), torch.tensor(classes).long())


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


def test_large_images_are_made_smaller_before_they_are_enlarged():
    """Zoomed out by 4, an image of 12 million pixels would take 576 MB."""
    boxes = ((500, 800, 2500, 3000), (2600, 400, 3900, 2000))
    sample = black_with(*boxes, size=(4000, 3000))
    small = shrunk(sample, (100, 100), Image.Resampling.BILINEAR)
    assert small.image.size == (133, 100)
    torch.testing.assert_close(small.boxes, sample.boxes * torch.tensor([133 / 4000, 100 / 3000] * 2))
    assert shrunk(small, (100, 100), Image.Resampling.BILINEAR) is small
    sizes = []
    transform = TrainTransform(prepared((60, 80)), AugmentationConfig(zoom_out=None, photometric=None))
    transform._steps = lambda given, steps=transform._steps: sizes.append(given["image"].size) or steps(given)
    found = transform(sample, 0)
    assert sizes == [(267, 200)] and found["image"].shape == (3, 60, 80)


def test_colours_change_and_boxes_do_not():
    sample = black_with((5, 8, 25, 30))
    found = transformed(sample, 1, photometric={"probability": 1.0})
    assert not torch.equal(found["image"], transformed(sample)["image"])
    assert torch.equal(found["boxes"], transformed(sample)["boxes"])


def test_a_image_without_objects_is_not_searched_for_a_crop():
    empty = Sample(Image.new("RGB", (80, 60)), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
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
    colours = [Image.fromarray(np.asarray(s.image) // 5 * (n + 5)) for n, s in enumerate(samples)]
    samples = [Sample(colour, s.boxes, s.labels) for colour, s in zip(colours, samples, strict=True)]
    made = mosaic(samples, (120, 160), (0.5, 0.5), 0.3, Image.Resampling.NEAREST)
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
        return Image.new("RGB", self._size, "white")


@pytest.mark.parametrize("size", [(1, 200_000), (200_000, 1), (30, 200_000)])
@pytest.mark.parametrize("augmentation", [{}, {"mosaic": {"probability": 1.0}}, {"zoom_out": {"probability": 1.0}}])
def test_nothing_that_is_made_of_a_strip_is_huge(size, augmentation, monkeypatch):
    made, new = [], Image.new

    def spy(mode, size, *arguments):
        made.append(size[0] * size[1])
        return new(mode, size, *arguments)

    monkeypatch.setattr(Image, "new", spy)
    given = AugmentationConfig.model_validate(augmentation)
    strips = TrainReader(Strips(*size), prepared((48, 64), mean=MEAN), given, seed=0)
    for position in range(10):
        sample = strips[Draw(0, 0, position)]
        assert sample["image"].shape == (3, 48, 64)
        assert (sample["boxes"] >= 0).all() and (sample["boxes"] <= 1).all()
    made = [pixels for pixels in made if pixels != size[0] * size[1]]
    assert max(made, default=0) < 2**20


def test_only_the_longer_side_of_a_strip_is_shrunk():
    for size, after in (((200_000, 3), (8 * 128, 3)), ((3, 200_000), (3, 8 * 96)), ((1000, 90), (1000, 90))):
        reader = TrainReader(Strips(*size), prepared((48, 64), mean=MEAN), AugmentationConfig(), seed=0)
        sample = reader._read(0)
        assert sample.image.size == after
        long = int(size[0] < size[1])
        part = sample.boxes[0, [long, long + 2]] / after[long]
        torch.testing.assert_close(part, torch.tensor([0.25, 0.75]))
