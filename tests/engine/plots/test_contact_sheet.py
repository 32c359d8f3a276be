from __future__ import annotations

import numpy as np
import torch

from engine.plots.contact_sheet import COLUMNS, _caption, contact_sheet
from engine.plots.figures import LINE, MARGIN, TILE

CLASSES = [
    "cod",
    "größe 蟻",
    "hake",
    "a name that is longer than an image on the sheet is wide",
    *map(str, range(996)),
]


def one_hot(labels) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(labels), len(CLASSES)).float()


def test_each_image_is_on_the_sheet_over_its_name():
    images = torch.stack([torch.full((3, 32, 48), value) for value in range(20, 240, 20)]).float()
    sheet = contact_sheet(images, one_hot([k % 3 for k in range(11)]), CLASSES)
    assert sheet.dtype == np.uint8 and sheet.shape[1] > COLUMNS * TILE
    values, counts = np.unique(sheet[..., 0], return_counts=True)
    shown = dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert all(shown[value] >= TILE * (TILE * 32 // 48) for value in range(20, 240, 20))
    height = TILE * 32 // 48
    below = sheet[MARGIN + height : MARGIN + height + LINE, MARGIN : MARGIN + TILE]
    assert (below < 128).any(), "a name stands under the first image"
    assert (sheet[MARGIN : MARGIN + height, MARGIN : MARGIN + TILE] == 20).all(), "and not on it"


def test_one_image_makes_a_small_sheet():
    assert contact_sheet(torch.zeros(1, 3, 4, 4), one_hot([0]), CLASSES).shape[1] == TILE + 2 * MARGIN


def test_captions_say_the_shares_of_what_is_mixed():
    assert _caption(one_hot([1])[0], CLASSES) == ["größe 蟻"]
    assert _caption(0.3 * one_hot([0])[0] + 0.7 * one_hot([2])[0], CLASSES) == ["0.70 hake", "0.30 cod"]
    assert _caption(0.3 * one_hot([0])[0] + 0.7 * one_hot([0])[0], CLASSES) == ["cod"]
    assert _caption(0.001 * one_hot([0])[0] + 0.999 * one_hot([2])[0], CLASSES) == ["hake"]
    assert _caption(torch.zeros(1000), CLASSES) == ["(none)"]
    several = one_hot([0, 1, 2, 8]).sum(0)
    assert _caption(several, CLASSES) == ["cod", "größe 蟻", "and 2 more"]
    assert len(_caption(one_hot([0, 1, 2]).sum(0), CLASSES)) == 3
