"""Sheets of images, names in figures, and tables as text."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from engine.plots.figures import LINE, MARGIN, TILE, Tile, _fits, _font, as_image, contained, sheet, shown_name
from engine.plots.fonts import default_file
from engine.text import csv_bytes, markdown_table, shortened


def test_a_sheet_holds_each_image_in_its_place_over_its_caption():
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    tiles = [
        Tile(Image.new("RGB", (40 * (i + 1), 60), colour), [("a name", "black")]) for i, colour in enumerate(colours)
    ]
    drawn = sheet(tiles, columns=2)
    row = TILE + 2 * MARGIN + LINE
    assert drawn.shape == (2 * row + MARGIN, 2 * (TILE + MARGIN) + MARGIN, 3)
    middle = MARGIN + TILE // 2
    for (down, across), colour in zip(((0, 0), (0, 1), (1, 0)), colours, strict=True):
        # Images stand on their captions, whatever their proportions.
        assert tuple(drawn[down * row + MARGIN + TILE - 3, across * (TILE + MARGIN) + middle]) == colour
    assert (drawn[row + MARGIN + TILE // 2, -middle] == 255).all()
    assert (drawn[MARGIN + TILE + 2 : row] < 100).any(), "the captions"


def test_a_caption_is_one_line_no_wider_than_its_image():
    font, name = _font(Path(default_file())), "a name that is longer than an image on the sheet is wide"
    cut = _fits(name, font)
    assert "…" in cut and len(cut) > 10 and name.startswith(cut.partition("…")[0]) and font.getlength(cut) <= TILE
    assert _fits("cod", font) == "cod"
    assert _fits("two\nlines", font) == "two lines"


def test_names_stay_short_and_are_no_formulas():
    assert shortened("abcdefghij", 7) == "abcd…ij"
    assert shown_name("a$b$\nc") == r"a\$b\$ c"
    figure = Figure(figsize=(2, 1))
    figure.text(0, 0.5, shown_name("$\\broken{$ 鱼"))
    assert as_image(figure, 50).shape == (50, 100, 3)


def test_tables_keep_what_is_in_their_cells():
    assert markdown_table(("a", "b|c"), [("<x>\ny", 1)]) == "| a | b\\|c |\n| --- | --- |\n| &lt;x> y | 1 |"
    rows = [["a,b", 'c"d'], ["\udcff.jpg", "é"]]
    text = csv_bytes(["x", "y"], rows)
    assert list(csv.reader(io.StringIO(text.decode(errors="surrogateescape")))) == [["x", "y"], *rows]
    assert b"\xff.jpg,\xc3\xa9\n" in text and np.frombuffer(text, np.uint8).size == len(text)


def test_a_strip_has_a_pixel_on_its_shorter_side():
    assert contained(Image.new("RGB", (3000, 1)), 90).size == (90, 1)
    assert contained(Image.new("RGB", (2, 3000)), 90).size == (1, 90)
    for size in ((40, 30), (33, 100), (7, 7), (500, 499), (1000, 11)):
        assert contained(Image.new("RGB", size), 90).size == ImageOps.contain(Image.new("RGB", size), (90, 90)).size
    assert sheet([Tile(Image.new("RGB", (3000, 1)), []), Tile(Image.new("RGB", (1, 1)), [])], columns=2).size
