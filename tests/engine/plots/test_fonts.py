"""Names in scripts that matplotlib's own font lacks, with and without a font that has them."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from PIL import Image, ImageFont

from engine.plots.figures import Tile, as_image, sheet, shown_name
from engine.plots.fonts import default_file, give_fonts, in_one_font, readable, text_width

CAT, DOG = "猫", "犬"


@pytest.fixture(autouse=True)
def _no_other_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what comes with matplotlib, whatever this machine has."""
    shipped = str(Path(default_file()).parents[1])
    monkeypatch.setattr(fontManager, "ttflist", [entry for entry in fontManager.ttflist if shipped in entry.fname])


def make_font(path: Path, family: str, characters: str) -> Path:
    """Installs a font whose every glyph is a filled square."""
    pen = TTGlyphPen(None)
    for draw, point in [(pen.moveTo, (0, 0)), (pen.lineTo, (0, 900)), (pen.lineTo, (900, 900)), (pen.lineTo, (900, 0))]:
        draw(point)
    pen.closePath()
    square, names = pen.glyph(), {ord(character): f"u{ord(character):04X}" for character in characters}
    glyphs = {".notdef": square, **dict.fromkeys(names.values(), square)}
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap(names)
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    builder.save(path)
    fontManager.addfont(path)
    return path


def labelled(name: str) -> Figure:
    figure = Figure(figsize=(3, 1))
    figure.add_axes((0.5, 0.2, 0.4, 0.6)).set_yticks([0.5], [shown_name(name)])
    return figure


def ink(figure: Figure) -> int:
    """Dark pixels left of the axes: those of the label."""
    image = as_image(figure, 100)
    return int((image[:, :140].mean(axis=2) < 100).sum())


def test_what_no_font_has_is_written_as_numbers_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert readable("cod, Κόδ, треска, 7½ ♥") == "cod, Κόδ, треска, 7½ ♥"
    assert readable(f"{CAT}{DOG} (cat, {DOG})") == "<U+732B 72AC> (cat, <U+72AC>)"
    assert readable("a\U0001faa8b") == "a<U+1FAA8>b"
    assert shown_name(CAT) == "<U+732B>" and len(shown_name(CAT * 30)) == 28
    with warnings.catch_warnings(), caplog.at_level(logging.DEBUG):
        warnings.simplefilter("error")
        assert ink(labelled(CAT)) > ink(labelled("a")) > 0
    assert "missing" not in caplog.text and "not found" not in caplog.text
    texts, file = in_one_font([CAT, "cod"])
    assert (texts, file) == (["<U+732B>", "cod"], Path(default_file()))


def test_a_font_of_this_machine_that_has_the_characters_draws_them(tmp_path: Path) -> None:
    squares = make_font(tmp_path / "squares.ttf", "Squares", f"{CAT}ab ")
    make_font(tmp_path / "one.ttf", "Another", DOG)
    assert readable(CAT + DOG) == CAT + DOG == shown_name(CAT + DOG)
    figure = labelled(f"{CAT}x{DOG}")
    give_fonts(figure)
    (label,) = figure.axes[0].get_yticklabels()
    assert {"Squares", "Another"} < set(label.get_fontfamily()) and label.get_fontfamily()[0] == "sans-serif"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ink(labelled(CAT * 2)) > 3 * ink(labelled("il"))
    assert in_one_font([f"{CAT}a", "b"]) == ([f"{CAT}a", "b"], squares)
    assert in_one_font([f"{CAT}{DOG}"])[0] == ["<U+732B 72AC>"]  # each has one of them
    assert in_one_font(["ab"]) == (["ab"], Path(default_file()))


def test_captions_of_sheets_are_drawn_in_it(tmp_path: Path) -> None:
    def caption(text: str) -> np.ndarray:
        return sheet([Tile(Image.new("RGB", (8, 8), "white"), [(text, "black")])], 1)

    without = caption(CAT)
    assert (without == caption("<U+732B>")).all()
    font = ImageFont.truetype(make_font(tmp_path / "squares.ttf", "Squares", CAT), 12)
    assert font.getlength(CAT) == 12
    assert (caption(CAT) < 100).sum() > 2 * (without < 100).sum() / len("<U+732B>")
    assert (caption(CAT) != without).any()


def test_widths_count_wide_characters_twice() -> None:
    assert (text_width("cod"), text_width(CAT + "a")) == (3, 3)
