"""Swin U-Net for diffusion: Cao et al., "Swin-Unet", 2021, with blocks that time and class modulate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.model.block import ConditionedBlock, Modulation, modulate, run_blocks
from diffusion.model.config import SHAPES
from diffusion.model.embedding import Condition
from swin.config import SwinConfig, pair
from swin.model import init_weights
from swin.patch import PatchEmbed, PatchExpanding, PatchMerging


class DownStage(nn.Module):
    """Blocks of one resolution, and the merging that leads down: a :class:`swin.model.SwinStage` with a condition."""

    def __init__(self, config: SwinConfig, stage: int, condition: int) -> None:
        super().__init__()
        self.window = config.windows[stage]
        self.blocks = _blocks(config, stage, condition)
        last = stage + 1 == len(config.depths)
        self.downsample = None if last else PatchMerging(config.dims[stage])

    def forward(self, x: Tensor, condition: Tensor, recompute: bool) -> Tensor:
        """Maps (B, H, W, C) to (B, H, W, C), which is not merged yet."""
        return run_blocks(self.blocks, x, condition, self.window, recompute)


class UpStage(nn.Module):
    """Expands the map below, joins it with the map of the way down, and runs blocks of that resolution."""

    def __init__(self, config: SwinConfig, stage: int, condition: int) -> None:
        super().__init__()
        dim = config.dims[stage]
        self.window = config.windows[stage]
        self.upsample = PatchExpanding(2 * dim)
        self.join = nn.Linear(2 * dim, dim)
        self.blocks = _blocks(config, stage, condition)

    def forward(self, x: Tensor, skip: Tensor, condition: Tensor, recompute: bool) -> Tensor:
        """Maps (B, H / 2, W / 2, 2 C), and (B, H, W, C) of the way down, to (B, H, W, C)."""
        x = self.upsample(x)[:, : skip.shape[1], : skip.shape[2]]
        x = self.join(torch.cat([x, skip], dim=-1))
        return run_blocks(self.blocks, x, condition, self.window, recompute)


def _blocks(config: SwinConfig, stage: int, condition: int) -> nn.ModuleList:
    return nn.ModuleList(
        ConditionedBlock(
            dim=config.dims[stage],
            num_heads=config.num_heads[stage],
            window=config.windows[stage],
            condition=condition,
            mlp_ratio=config.mlp_ratio,
            qkv_bias=config.qkv_bias,
            proj_drop=config.proj_drop,
            attn_drop=config.attn_drop,
        )
        for _ in range(config.depths[stage])
    )


class SwinUNet(nn.Module):
    """Maps noisy images to what a process asks for: see :class:`diffusion.process.process.Network`.

    Any size of image runs: sides that are no multiple of a patch are padded with zeros at the bottom and the right, as
    maps are within, and learned positions are interpolated to other sizes than `img_size`.

    Args:
        config: The shape: `depths` and `num_heads` are of the way down, whose last stage is the bottleneck, and,
            without the last, of the way up. `num_classes` 0 is a network that is told no class. `img_size` is needed;
            `drop_rate` and `drop_path` have to be 0.
    """

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        if config.img_size is None:
            raise ValueError("img_size is needed: a Swin U-Net learns a position for each patch of it")
        if config.drop_path or config.drop_rate:
            raise ValueError("drop_path and drop_rate are of classifiers; a Swin U-Net has proj_drop and attn_drop")
        self.config = config
        self.grad_checkpointing = False
        patch, dim, condition = config.patch_size, config.embed_dim, 4 * config.embed_dim
        rows, columns = (-(-side // patch) for side in pair(config.img_size))
        self.patch_embed = PatchEmbed(patch, config.in_chans, dim, config.patch_norm)
        self.pos_embed = nn.Parameter(torch.empty(1, rows, columns, dim))
        self.condition = Condition(condition, config.num_classes)
        stages = range(len(config.depths))
        self.layers = nn.ModuleList(DownStage(config, stage, condition) for stage in stages)
        self.up_layers = nn.ModuleList(UpStage(config, stage, condition) for stage in reversed(stages[:-1]))
        self.norm = nn.LayerNorm(dim)
        self.modulation = Modulation(condition, dim, 2)
        self.head = nn.Linear(dim, patch * patch * config.in_chans)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises so that the network answers 0 at first, and its blocks change nothing."""
        self.apply(init_weights)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        zeroed = [module.linear for module in self.modules() if isinstance(module, Modulation)]
        for layer in [*zeroed, self.head]:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, angle: Tensor, labels: Tensor | None = None) -> Tensor:
        """Maps images (B, in_chans, H, W) to (B, in_chans, H, W).

        Args:
            x: Noisy images of a variance of about 1.
            angle: (B,) atan2(sigma, alpha), from 0 (image) to pi / 2 (noise).
            labels: (B,) int64 in [0, num_classes], where `num_classes` stands for none; None without classes.
        """
        height, width = x.shape[2:]
        patch, recompute = self.config.patch_size, self.grad_checkpointing and torch.is_grad_enabled()
        condition = self.condition(angle, labels)
        y = self.patch_embed(F.pad(x, (0, -width % patch, 0, -height % patch)))
        y = y + self.positions(y.shape[1], y.shape[2])
        skips = []
        for down in self.layers:
            assert isinstance(down, DownStage)
            y = down(y, condition, recompute)
            if down.downsample is not None:
                skips.append(y)
                y = down.downsample(y)
        for up in self.up_layers:
            y = up(y, skips.pop(), condition, recompute)
        y = self.head(modulate(self.norm(y), *self.modulation(condition)))
        return unpatched(y, patch)[:, :, :height, :width]

    def positions(self, rows: int, columns: int) -> Tensor:
        """Returns the learned positions, interpolated bicubically where the map is of another size: (1, H, W, C)."""
        return resized_positions(self.pos_embed, rows, columns)

    def no_weight_decay(self) -> set[str]:
        """Returns names of positions, bias tables and classes; norms and biases are for the optimizer."""
        ends = ("pos_embed", "relative_position_bias_table", "classes.weight")
        return {name for name, _ in self.named_parameters() if name.endswith(ends)}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Returns what belongs to which depth, by timm's protocol: each stage of the way down, then all else."""
        return {"stem": r"^(?:patch_embed|pos_embed)", "blocks": r"^layers\.(\d+)"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes each block in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable


def resized_positions(positions: Tensor, rows: int, columns: int) -> Tensor:
    """Interpolates positions (1, h, w, C) bicubically to (1, rows, columns, C); those of that size stay as they are."""
    if positions.shape[1:3] == (rows, columns):
        return positions
    plane = positions.permute(0, 3, 1, 2)
    return F.interpolate(plane, size=(rows, columns), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)


def unpatched(x: Tensor, patch: int) -> Tensor:
    """Turns patches into pixels: (B, H, W, patch * patch * C), pixels row by row, to (B, C, H * patch, W * patch)."""
    batch, rows, columns, channels = x.shape
    x = x.view(batch, rows, columns, patch, patch, channels // patch**2).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(batch, -1, rows * patch, columns * patch)


def build_swin_unet(name: str, **fields: Any) -> SwinUNet:
    """Builds the network of that name in :data:`diffusion.model.config.SHAPES`, with fields of its shape changed.

    ``build_swin_unet("swin_unet_tiny", img_size=32, num_classes=10)``
    """
    return SwinUNet(replace(SHAPES[name], **fields))
