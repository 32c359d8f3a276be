"""Names that a person takes for the same: written in other bytes, or in letters that look alike."""

from __future__ import annotations

import contextlib
import math
import re
import unicodedata
from collections.abc import Iterable
from urllib.parse import unquote

_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_MISREAD_AS = ("cp1252", "latin-1", "cp437")
"""What UTF-8 is taken for by spreadsheets, old tools and unzip."""
_LIKE_LATIN = str.maketrans(
    "АВЕЅІЈКМНОРСТХУԚԜΑΒΕΖΗΙΚΜΝΟΡΤΥΧасԁеһіјкӏорԛѕѵѡхуαικνορυγ",
    "ABESIJKMHOPCTXYQWABEZHIKMNOPTYXacdehijklopqsvwxyaikvopuy",
)
"""Letters of other scripts, by the Latin ones that look like them."""
_ALIKE = str.maketrans("01i|_‐‑‒–—―−-ʼ’‘`´ʹ", "olll" + " " * 9 + "'" * 6)
"""Digits like letters, and marks that people mix up."""


def same_text(name: str) -> str:
    """Returns the text that ``name`` means, in NFC: ``caf%C3%A9``, ``cafÃ©``, Latin-1 bytes and NFD are ``café``."""
    if "%" in name:
        with contextlib.suppress(UnicodeDecodeError):
            name = unquote(name, errors="strict")
    if name.isascii():
        return name
    name = as_text(name)
    for encoding in _MISREAD_AS:
        with contextlib.suppress(UnicodeError):
            name = name.encode(encoding).decode()
            break
    return unicodedata.normalize("NFC", name)


def as_text(name: str) -> str:
    """Returns a file's name as text that can be written: bytes that are no UTF-8 are read as Latin-1."""
    try:
        return name.encode().decode()
    except UnicodeEncodeError:
        try:
            return name.encode(errors="surrogateescape").decode("latin-1")
        except UnicodeEncodeError:  # half of a surrogate pair, from JSON
            return name.encode(errors="backslashreplace").decode()


def look(name: str) -> str:
    """Returns a text that names have in common which a person cannot tell apart, or takes for the same number.

    Case, width, spaces, hyphens, underscores, invisible characters, and letters of other scripts do not count.
    """
    text = unicodedata.normalize("NFKC", same_text(name))
    text = "".join(letter for letter in text if unicodedata.category(letter) not in ("Cf", "Cc") or letter.isspace())
    if _NUMBER.fullmatch(text.strip()) and math.isfinite(value := float(text.strip().replace(",", "."))):
        return f"number {value + 0.0!r}"
    text = text.translate(_LIKE_LATIN).casefold().replace("ı", "i").replace("i̇", "i").translate(_ALIKE)
    return " ".join(text.split())


def look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Returns those of different ``names`` that look alike, in groups of two and more."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(look(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def told_apart(*names: str | None) -> list[str]:
    """Formats names in quotes; with escapes for what is not ASCII where they would look alike without."""
    alike = look_alikes(name for name in names if name is not None)
    return [ascii(name) if any(name in group for group in alike) else repr(name) for name in names]
