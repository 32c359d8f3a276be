"""Names in any script in figures and on sheets: drawn with a font of this machine that has the characters.

matplotlib's own font has the alphabets of Europe, Arabic and many symbols, but no Chinese, Japanese or Korean and few
emoji. Others are looked for only where a name needs them. A character that no font has is written as its number.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontEntry


def readable(text: str) -> str:
    """Replaces runs of characters that no font here has by their numbers: ``猫犬`` becomes ``<U+732B 72AC>``."""
    missing = _lacking(text, default_file())
    for entry in _others() if missing else ():
        missing -= _characters(entry.fname)
    return _numbered(text, missing)


def text_width(text: str) -> int:
    """Counts characters; Chinese, Japanese and Korean ones, as wide as two others, count twice."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def give_fonts(figure: Figure) -> None:
    """Lets the texts of ``figure`` fall back, character by character, on fonts that have what the usual one lacks."""
    from matplotlib.text import Text

    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    missing = _lacking("".join(text.get_text() for text in texts), default_file())
    families = []
    while missing and (able := [entry for entry in _others() if missing & _characters(entry.fname)]):
        most = max(able, key=lambda entry: len(missing & _characters(entry.fname)))
        families.append(most.name)
        missing -= _characters(most.fname)
    for text in texts if families else ():
        text.set_fontfamily([*text.get_fontfamily(), *families])


def in_one_font(texts: Sequence[str]) -> tuple[list[str], Path]:
    """Returns texts as Pillow, which draws a text in one font, can draw them, and the file of the font.

    It is one that has all characters, or else the usual one, and what that lacks is written as numbers.
    """
    usual, joined = default_file(), "".join(texts)
    missing = _lacking(joined, usual)
    if missing:
        complete = (entry.fname for entry in _others() if not _lacking(joined, entry.fname))
        if (file := next(complete, None)) is not None:
            return list(texts), Path(file)
    return [_numbered(text, missing) for text in texts], Path(usual)


def default_file() -> str:
    """Returns the file of matplotlib's own font, which comes with it."""
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


def _others() -> list[FontEntry]:
    """Returns the machine's upright fonts of normal weight, in a fixed order; the first of a file of several."""
    from matplotlib.font_manager import fontManager

    plain = [entry for entry in fontManager.ttflist if entry.style == "normal" and entry.weight in (400, "normal")]
    # "Last Resort" draws a box for any character.
    usable = [entry for entry in plain if "Last Resort" not in entry.name and getattr(entry, "index", 0) == 0]
    return sorted(usable, key=lambda entry: (entry.name, entry.fname))


def _lacking(text: str, file: str) -> frozenset[str]:
    """Returns the characters of ``text`` that a font has not; of blanks and line ends none is asked for."""
    return frozenset(character for character in text if not character.isspace()) - _characters(file)


@cache
def _characters(file: str) -> frozenset[str]:
    """Returns the characters that a font has outlines of: none for coloured pixels or an unreadable file."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(file)
        return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
    except (OSError, RuntimeError):
        return frozenset()


def _numbered(text: str, missing: frozenset[str]) -> str:
    if not missing:
        return text
    run = f"[{re.escape(''.join(missing))}]+"
    return re.sub(run, lambda found: f"<U+{' '.join(f'{ord(character):04X}' for character in found[0])}>", text)
