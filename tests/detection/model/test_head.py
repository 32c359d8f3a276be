"""The SSD head: the order of its rows, and what it starts at."""

from __future__ import annotations

import pytest
import torch

from detection.model.head import SSDHead

CHANNELS, PER_CELL, SIZES = (4, 6), (2, 3), ((3, 5), (1, 2))


def test_rows_follow_maps_cells_and_priors() -> None:
    head = SSDHead(CHANNELS, PER_CELL, num_outputs=7)
    maps = [torch.randn(2, c, *size) for c, size in zip(CHANNELS, SIZES, strict=True)]
    logits, codes = head(maps)
    assert logits.shape == (2, 2 * 15 + 3 * 2, 7) and codes.shape == (2, 36, 4)
    first, second = head.classes[0](maps[0]), head.boxes[1](maps[1])
    for row, column, prior in [(0, 0, 0), (2, 3, 1), (1, 4, 0)]:
        expected = first[1, 7 * prior : 7 * prior + 7, row, column]
        assert torch.equal(logits[1, (row * 5 + column) * 2 + prior], expected)
    assert torch.equal(codes[0, 30 + 1 * 3 + 2], second[0, 8:12, 0, 1])


def test_channels_last_changes_nothing() -> None:
    head = SSDHead(CHANNELS, PER_CELL, num_outputs=3)
    maps = [torch.randn(2, c, *size) for c, size in zip(CHANNELS, SIZES, strict=True)]
    expected = head(maps)
    strided = head.to(memory_format=torch.channels_last)([x.to(memory_format=torch.channels_last) for x in maps])
    for ours, theirs in zip(strided, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_sigmoids_start_at_the_prior_probability() -> None:
    torch.manual_seed(0)
    maps = [torch.randn(2, c, *size) for c, size in zip(CHANNELS, SIZES, strict=True)]
    logits, _ = SSDHead(CHANNELS, PER_CELL, num_outputs=7, prior_probability=0.01)(maps)
    assert logits.sigmoid().mean().item() == pytest.approx(0.01, rel=0.1)
    logits, _ = SSDHead(CHANNELS, PER_CELL, num_outputs=7)(maps)
    assert logits.mean().abs() < 0.5 and logits.std() > 0.1
