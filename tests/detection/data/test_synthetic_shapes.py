from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from detection.data.sections import ShapesData
from detection.data.synthetic_shapes import ShapeImages, draw, layout
from engine.errors import UserError

SMALL = {"source": "shapes", "train_images": 8, "val_images": 3, "canvas_size": (60, 80)}


def shapes(**changes) -> ShapesData:
    return ShapesData.model_validate({**SMALL, **changes})


def test_images_follow_from_the_seed_the_split_and_their_number():
    one, other = ShapeImages(shapes(), "train"), ShapeImages(shapes(train_images=20), "train")
    for index in (0, 3, 7):
        assert one.image(index).pixels().tobytes() == other.image(index).pixels().tobytes()
        assert np.array_equal(
            one.annotations.boxes[one.annotations.of(index)], other.annotations.boxes[other.annotations.of(index)]
        )
    variants = {draw(shapes(seed=seed), split, 0).tobytes() for seed in (0, 1) for split in ("train", "val")}
    assert len(variants) == 4


@pytest.mark.parametrize("name", ["circle", "square", "triangle", "star", "ring", "cross"])
def test_boxes_are_tight_around_what_is_drawn(name):
    config = shapes(classes=[name], max_objects=1, background="noise")
    for index in range(12):
        for shape in layout(config, "train", index):
            with_it = np.asarray(draw(config, "train", index)).astype(int)
            without = np.asarray(draw(shapes(max_objects=1, background="noise", scale=(0.07, 0.07)), "train", index))
            far = (np.abs(with_it - np.array(shape.colour)).sum(axis=2) <= 3) & (with_it != without).any(axis=2)
            rows, columns = np.nonzero(far)
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert np.abs(shape.box - found).max() < 3  # points of a star are thin
            assert (shape.box[:2] >= 0).all() and (shape.box[2:] <= (80, 60)).all()


def test_annotations_have_all_classes_sizes_and_images_without_objects():
    known = ShapeImages(shapes(train_images=300), "train").annotations
    counts = np.diff(known.starts)
    assert counts.min() == 0 and counts.max() <= 6 and counts.sum() == len(known.boxes)
    assert set(known.labels.tolist()) == set(range(6))
    assert known.classes == ["circle", "square", "triangle", "star", "ring", "cross"]
    sides = known.boxes[:, 2:] - known.boxes[:, :2]
    assert sides.min() > 4 and sides.max() > 24


def test_what_cannot_be_drawn_is_refused():
    impossible: list[dict] = [
        {"scale": (0.5, 0.1)},
        {"scale": (0.01, 0.5)},
        {"classes": ["circle", "circle"]},
        {"classes": []},
    ]
    for changes in impossible:
        with pytest.raises(ValidationError):
            shapes(**changes)
    with pytest.raises(UserError, match="no test split"):
        ShapeImages(shapes(), "test")
