"""Many names in two arrays."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from engine.data import names
from engine.data.names import Names

ODD = ["a/b.jpg", "", "ü", "\udcff\udc80", "日本/🐟.png", "a/b.jpg"]
"""The fourth is what Python makes of bytes that are no UTF-8."""


def test_names_come_out_as_they_went_in() -> None:
    kept = Names(iter(ODD))
    assert list(kept) == ODD and len(kept) == 6 and kept[-1] == kept[0] == "a/b.jpg"
    assert list(kept[1:4]) == ODD[1:4] and list(kept[::-2]) == ODD[::-2]
    assert kept[np.int64(2)] == "ü"
    assert list(Names()) == []
    with pytest.raises(IndexError):
        kept[6]


def test_some_are_taken_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "BLOCK", 4)  # more than one block of them
    kept = Names(ODD)
    for indices in ([], [5], [3, 3, 0], [4, 1, 0, 2, 5, 3, 4, 4, 1]):
        taken = kept.take(np.array(indices, np.int64))
        assert list(taken) == [ODD[index] for index in indices]
        texts = [ODD[i].encode(errors="surrogateescape") for i in indices]
        assert taken.nbytes == 8 * (len(indices) + 1) + sum(len(text) + 1 for text in texts)


@pytest.mark.parametrize("kind", ["ascii", "text", "bytes", "of all lengths"])
def test_they_are_sorted_as_python_does(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "BLOCK", 64)
    random = np.random.default_rng(0)
    letters = {"ascii": "ab/. 9Z", "text": "a\u00e9\uffee\U0001f41f\u65e5/", "bytes": "a\uffee\udcff\U0001f41f/"}
    letters["of all lengths"] = "ab"
    texts = ["".join(random.choice(list(letters[kind]), random.integers(6))) for _ in range(300)]
    texts += ["a" * 1000] * (kind == "of all lengths")
    assert list(Names(texts).in_order()) == sorted(texts)
    ordered = Names(sorted(texts))
    assert ordered.in_order() is ordered and list(Names().in_order()) == []


def test_a_name_with_a_nul_is_none() -> None:
    with pytest.raises(ValueError, match=r"b.x00c"):
        Names(["a", "b\0c"])


def test_names_cost_little_more_than_their_bytes() -> None:
    """As strings in a list they would take 88 bytes each."""
    count = 10**5
    tracemalloc.start()
    kept = Names(f"n{i // 1000:08d}/n{i // 1000:08d}_{i:06d}.JPEG" for i in range(count))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept.nbytes == (32 + 8) * count + 8
    assert peak < 90 * count
