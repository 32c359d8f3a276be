"""What two runs of a notebook must have in common, on whatever machine."""

from __future__ import annotations

import re
from typing import Any

from tests.notebooks.percent import joined

TOLERANCE = 0.15
"""Of a fraction that is printed: training takes other turns where sums are rounded otherwise. Of percent, 15."""
NUMBER = re.compile(r"-?\d+(?:\.\d+)?%?")


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Returns in what two notebooks differ beyond chance: cells, kinds of outputs, and what is printed."""
    if [_written(cell) for cell in one["cells"]] != [_written(cell) for cell in other["cells"]]:
        return ["they have other cells"]
    found = []
    for number, (left, right) in enumerate(zip(one["cells"], other["cells"], strict=True), start=1):
        left, right = left.get("outputs", []), right.get("outputs", [])
        if list(map(_kind, left)) != list(map(_kind, right)):
            found.append(f"cell {number}: shows {list(map(_kind, left))} and {list(map(_kind, right))}")
            continue
        texts = [(_text(a), _text(b)) for a, b in zip(left, right, strict=True)]
        found += [f"cell {number}: {a!r} and {b!r}" for a, b in texts if not alike(a, b)]
    return found


def alike(one: str, other: str) -> bool:
    """Whether two texts differ in fractions alone, and in those by no more than the tolerance.

    The layout of tables follows the digits, and does not count.
    """
    words = [re.sub(r"[\s-]+", " ", NUMBER.sub("0", text)) for text in (one, other)]
    numbers = [NUMBER.findall(text) for text in (one, other)]
    return words[0] == words[1] and all(map(_near, *numbers))


def _near(one: str, other: str) -> bool:
    if "." not in one + other and not (one.endswith("%") and other.endswith("%")):
        return one == other
    scale = 100 if one.endswith("%") else 1
    return abs(float(one.rstrip("%")) - float(other.rstrip("%"))) <= TOLERANCE * scale


def _written(cell: dict[str, Any]) -> tuple[str, str]:
    return cell["cell_type"], joined(cell["source"])


def _kind(output: dict[str, Any]) -> tuple[str, ...]:
    return output["output_type"], output.get("name", ""), *sorted(output.get("data", {}))


def _text(output: dict[str, Any]) -> str:
    if output["output_type"] == "stream":
        return joined(output["text"])
    shown = output.get("data", {})
    return "\n".join(joined(shown[kind]) for kind in ("text/plain", "text/markdown") if kind in shown)
