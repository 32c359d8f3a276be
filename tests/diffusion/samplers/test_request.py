from __future__ import annotations

import pytest

from diffusion.samplers.request import Request


@pytest.mark.parametrize("world_size", [1, 2, 3, 20])
def test_ranks_share_the_same_blocks(world_size: int) -> None:
    request = Request(101, 0)
    shares = [request.blocks(7, rank, world_size) for rank in range(world_size)]
    blocks = sorted((block for share in shares for block in share), key=lambda block: block.start)
    assert blocks == [range(first, first + 7) for first in range(0, 101, 7)]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_classes_come_in_turn() -> None:
    assert [Request(5, 0, (3, 8)).label(image) for image in range(6)] == [3, 8, 3, 8, 3, 8]
    assert Request(5, 0).label(4) == 0
