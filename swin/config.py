"""The shape of a Swin Transformer, and the four shapes that the paper trains."""

from __future__ import annotations

from dataclasses import dataclass

Size = int | tuple[int, int]
"""Height and width, or one number for both."""


def pair(size: Size) -> tuple[int, int]:
    """Returns one number for both sides, or (height, width) as it is."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return height, width


@dataclass(frozen=True, kw_only=True)
class SwinConfig:
    """Shape and behaviour of a model; the defaults are Swin-T on ImageNet.

    Impossible values raise ``ValueError`` naming the field.
    """

    num_classes: int = 1000
    """Outputs of the classifier; 0 leaves it out and returns pooled features."""
    img_size: Size | None = None
    """A hint, any size runs. A stage whose map at this size is smaller than its window gets a window of the map's size,
    as in the paper's code; without a hint every stage keeps `window_size`."""
    patch_size: int = 4
    in_chans: int = 3
    embed_dim: int = 96
    """C of the paper: channels of the first stage, doubled by each later one."""
    depths: tuple[int, ...] = (2, 2, 6, 2)
    """Blocks of each stage, alternately with regular and with shifted windows."""
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window_size: Size = 7
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    patch_norm: bool = True
    """LayerNorm behind the patch embedding."""
    drop_rate: float = 0.0
    """Dropout before the classifier."""
    proj_drop: float = 0.0
    """Dropout behind the patch embedding and behind each projection of attention and MLP."""
    attn_drop: float = 0.0
    """Dropout of attention weights."""
    drop_path: float = 0.2
    """Stochastic depth of the last block; it grows linearly from 0 at the first."""

    def __post_init__(self) -> None:
        for name in ("depths", "num_heads"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # lists come from YAML
        if not self.depths or len(self.depths) != len(self.num_heads):
            raise ValueError(f"depths {self.depths} and num_heads {self.num_heads} must have one entry per stage each")
        for name in ("patch_size", "window_size", "in_chans", "embed_dim", "depths", "num_heads"):
            value = getattr(self, name)
            if min(value if isinstance(value, tuple | list) else (value,)) < 1:
                raise ValueError(f"{name} must be positive, not {value}")
        if self.img_size is not None and min(pair(self.img_size)) < self.patch_size:
            raise ValueError(f"img_size {self.img_size} is smaller than one patch of {self.patch_size}")
        for name in ("drop_rate", "proj_drop", "attn_drop", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        if self.num_classes < 0 or not self.mlp_ratio > 0:
            raise ValueError(
                f"num_classes must not be negative ({self.num_classes}), mlp_ratio must be positive ({self.mlp_ratio})"
            )
        for dim, heads in zip(self.dims, self.num_heads, strict=True):
            if dim % heads:
                raise ValueError(
                    f"a stage of {dim} channels cannot be split over {heads} heads; see embed_dim, num_heads"
                )

    @property
    def dims(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.embed_dim * 2**stage for stage in range(len(self.depths)))

    @property
    def strides(self) -> tuple[int, ...]:
        """Returns the pixels per token of each stage."""
        return tuple(self.patch_size * 2**stage for stage in range(len(self.depths)))

    @property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """Returns the window of each stage: `window_size`, or the whole map where that is smaller at `img_size`."""
        window = pair(self.window_size)
        if self.img_size is None:
            return (window,) * len(self.depths)
        height, width = pair(self.img_size)
        maps = [(height // self.patch_size, width // self.patch_size)]
        for _ in self.depths[1:]:
            maps.append(((maps[-1][0] + 1) // 2, (maps[-1][1] + 1) // 2))
        return tuple((min(window[0], rows), min(window[1], columns)) for rows, columns in maps)

    @property
    def drop_paths(self) -> tuple[tuple[float, ...], ...]:
        """Returns each block's probability of dropping a branch, by stages: linear over the model's whole depth."""
        total = sum(self.depths)
        rates = iter([self.drop_path * block / max(total - 1, 1) for block in range(total)])
        return tuple(tuple(next(rates) for _ in range(depth)) for depth in self.depths)


TINY = SwinConfig()
SMALL = SwinConfig(depths=(2, 2, 18, 2), drop_path=0.3)
BASE = SwinConfig(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), drop_path=0.5)
LARGE = SwinConfig(embed_dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48), drop_path=0.2)
SHAPES = {"swin_tiny": TINY, "swin_small": SMALL, "swin_base": BASE, "swin_large": LARGE}
"""The published shapes by the names of our models."""
