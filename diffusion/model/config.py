"""Shapes of the Swin U-Net, without torch."""

from __future__ import annotations

from swin.config import SwinConfig

TINY = SwinConfig(
    patch_size=2, embed_dim=64, depths=(2, 2, 2), num_heads=(2, 4, 8), window_size=4, patch_norm=False, drop_path=0.0
)
SMALL = SwinConfig(
    patch_size=2, embed_dim=96, depths=(2, 2, 4), num_heads=(3, 6, 12), window_size=8, patch_norm=False, drop_path=0.0
)
BASE = SwinConfig(
    patch_size=2, embed_dim=128, depths=(2, 4, 6), num_heads=(4, 8, 16), window_size=8, patch_norm=False, drop_path=0.0
)
SHAPES = {"swin_unet_tiny": TINY, "swin_unet_small": SMALL, "swin_unet_base": BASE}
"""Our shapes by the names of our models: stages on the way down, of which the last is the bottleneck; the way up has
the blocks of the way down."""
