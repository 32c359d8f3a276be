from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageFont

from detection.report.drawing import (
    CELL,
    COLUMNS,
    MOST_BOXES,
    TRUTH_COLOUR,
    Boxes,
    class_colour,
    draw,
    fit,
    name_places,
    training_sheet,
)
from detection.report.figures import detections_on
from engine.plots.fonts import default_file
from tests.detection.results import predictions

GREY = np.full((60, 80, 3), 90, np.uint8)
BOX = torch.tensor([[0.25, 0.5, 0.75, 0.9]])


def test_boxes_are_drawn_where_they_are_and_the_image_stays():
    found = draw(GREY, Boxes(BOX, torch.tensor([1])), ["cat", "dog"])
    rows, columns = np.nonzero((found == class_colour(1)).all(axis=2))
    assert (columns.min(), rows.max()) == (20, 54) and columns.max() in (59, 60)
    assert (GREY == 90).all() and found.dtype == np.uint8
    truth = draw(GREY, Boxes(BOX[:0], torch.zeros(0, dtype=torch.int64)), ["cat"], Boxes(BOX, torch.tensor([0])))
    assert (truth == TRUTH_COLOUR).all(axis=2).any()


def test_only_good_detections_are_kept():
    boxes = 80 * BOX.repeat(3, 1).numpy()
    found = detections_on(predictions(2, boxes, [0, 1, 2], [0.75, 0.25, 0.5], [1, 1, 1]), 1, (80, 80))
    torch.testing.assert_close(found.boxes, BOX.repeat(2, 1))
    assert found.labels.tolist() == [0, 2]
    assert found.scores is not None and found.scores.tolist() == [0.75, 0.5]
    assert draw(GREY, found, ["a", "b", "c"]).shape == GREY.shape


def test_classes_have_colours_of_their_own():
    assert len({class_colour(label) for label in range(90)}) == 90


def test_images_fill_the_cells_of_a_sheet():
    assert fit(GREY).shape == (CELL * 60 // 80, CELL, 3)
    assert fit(np.zeros((3000, 200, 3), np.uint8)).shape == (CELL, CELL // 15, 3)
    assert fit(np.zeros((1, 3000, 3), np.uint8)).shape == (1, CELL, 3)
    assert fit(Image.fromarray(GREY)).shape == fit(GREY).shape


def test_a_sheet_of_training_samples():
    sample = {
        "image": torch.from_numpy(GREY).permute(2, 0, 1),
        "boxes": BOX,
        "labels": torch.tensor([0]),
        "ignored": BOX * 0.5,
    }
    made = training_sheet([sample] * 5, ["cat"])
    assert made.shape[1] > COLUMNS * CELL and made.shape[0] < 2 * CELL  # two rows of images wider than high
    for colour in (class_colour(0), TRUTH_COLOUR):
        assert (made == colour).all(axis=2).any()


def test_a_box_around_the_whole_image_is_seen_on_all_sides():
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    made = draw(GREY, Boxes(whole, torch.tensor([1])), ["cat", "dog"])
    for side in (made[0], made[-1], made[:, 0], made[:, -1]):
        assert (side == class_colour(1)).all()


def test_images_of_one_pixel_and_names_of_any_script():
    tiny = np.full((1, 1, 3), 90, np.uint8)
    assert draw(tiny, Boxes(BOX, torch.tensor([0])), ["犬 $x_"]).shape == (1, 1, 3)


def test_the_best_detection_is_drawn_last():
    same = BOX.repeat(2, 1)
    made = draw(GREY, Boxes(same, torch.tensor([0, 1]), torch.tensor([0.9, 0.8])), ["a", "b"])
    assert (made == class_colour(0)).all(axis=2).any() and not (made[40] == class_colour(1)).all(axis=1).any()


def test_of_many_detections_the_best_are_drawn():
    edges = torch.linspace(0, 0.9, MOST_BOXES + 1)
    boxes = torch.stack([edges, torch.zeros_like(edges), edges + 0.005, torch.ones_like(edges)], dim=1)
    labels = torch.tensor([0] * MOST_BOXES + [1])
    wide = np.full((40, 800, 3), 90, np.uint8)
    there = [
        (draw(wide, Boxes(boxes, labels, scores), ["a", "b"]) == class_colour(1)).all(axis=2).any()
        for scores in (torch.linspace(0.9, 0.3, MOST_BOXES + 1), None)
    ]
    assert there == [False, True]


def test_names_lie_within_the_image_and_never_on_each_other():
    font = ImageFont.truetype(default_file(), 10)
    boxes = [(0, 0, 199, 99)] * 5 + [(190, 20, 199, 79), (0, 0, 9, 9)]
    places = name_places(["some name"] * 5 + ["i", "small"], boxes, font, (200, 100))
    assert [place is None for place in places] == [False] * 4 + [True, False, True]
    written = np.zeros((100, 200), int)
    for left, top, right, bottom in filter(None, places):
        assert 0 <= left <= right < 200 and 0 <= top <= bottom < 100
        written[top : bottom + 1, left : right + 1] += 1
    assert written.max() == 1


def test_names_do_not_hide_what_is_in_small_boxes():
    small = torch.tensor([[0.4, 0.4, 0.5, 0.5]])
    made = draw(GREY, Boxes(small, torch.tensor([0])), ["a long name"])
    rows, columns = np.nonzero((made != 90).any(axis=2))
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (32, 40, 24, 30)
