from __future__ import annotations

import torch

from diffusion.model.block import ConditionedBlock, modulate, run_blocks
from swin.block import SwinBlock
from swin.windows import make_grid, shift_mask


def test_with_open_gates_it_is_a_swin_block() -> None:
    """Shift and scale of zero, gates of one."""
    torch.manual_seed(0)
    block, plain = ConditionedBlock(8, 2, (4, 4), condition=6), SwinBlock(8, 2, (4, 4))
    plain.load_state_dict({name: tensor for name, tensor in block.state_dict().items() if "modulation" not in name})
    torch.nn.init.zeros_(block.modulation.linear.weight)
    with torch.no_grad():
        block.modulation.linear.bias.copy_(torch.tensor([0.0, 0, 1, 0, 0, 1]).repeat_interleave(8))
    x, grid = torch.randn(2, 10, 7, 8), make_grid(10, 7, (4, 4), shifted=True)
    mask = shift_mask(grid, x.device)
    torch.testing.assert_close(block(x, torch.randn(2, 6), grid, mask), plain(x, grid, mask))


def test_blocks_run_as_a_stage_of_a_swin_does() -> None:
    """Every second one shifted: found by the windows that each is given."""
    grids = []

    class Seen(torch.nn.Module):
        def forward(self, x, condition, grid, mask):  # type: ignore[no-untyped-def]
            grids.append((grid, mask is not None))
            return x

    run_blocks(torch.nn.ModuleList([Seen(), Seen(), Seen()]), torch.randn(1, 8, 8, 4), torch.randn(1, 2), (4, 4))
    assert [grid.shift for grid, _ in grids] == [(0, 0), (2, 2), (0, 0)]
    assert [masked for _, masked in grids] == [False, True, False]


def test_modulation_is_of_each_image() -> None:
    x, shift, scale = torch.randn(2, 3, 3, 4), torch.randn(2, 1, 1, 4), torch.randn(2, 1, 1, 4)
    found = modulate(x, shift, scale)
    torch.testing.assert_close(found[1, 2, 0], x[1, 2, 0] * (1 + scale[1, 0, 0]) + shift[1, 0, 0])
