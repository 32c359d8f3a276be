"""Swin Transformer (Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021).

The modules have the names of Microsoft's release, so its keys are our keys. Any input size runs: padding and masks are
worked out for the size at hand (see swin/windows.py for the convention).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from swin.block import SwinBlock
from swin.config import SwinConfig
from swin.patch import PatchEmbed, PatchMerging
from swin.windows import make_grid, shift_mask


class SwinStage(nn.Module):
    """Blocks of one resolution, alternately with regular and shifted windows, and the merging that leads on.

    Args:
        config: The model's shape.
        stage: Which stage this is, from 0.
        downsample: Whether a later stage follows.
    """

    def __init__(self, config: SwinConfig, stage: int, downsample: bool) -> None:
        super().__init__()
        dim = config.dims[stage]
        self.window = config.windows[stage]
        self.blocks = nn.ModuleList(
            SwinBlock(
                dim=dim,
                num_heads=config.num_heads[stage],
                window=self.window,
                mlp_ratio=config.mlp_ratio,
                qkv_bias=config.qkv_bias,
                proj_drop=config.proj_drop,
                attn_drop=config.attn_drop,
                drop_path=drop_path,
            )
            for drop_path in config.drop_paths[stage]
        )
        self.downsample = PatchMerging(dim) if downsample else None

    def forward(self, x: Tensor, recompute: bool = False) -> tuple[Tensor, Tensor | None]:
        """Runs the blocks and, where a later stage follows, the merging.

        Args:
            x: (B, H, W, C).
            recompute: Keeps only each block's input for the backward pass and runs the block again there.

        Returns:
            The stage's map (B, H, W, C), and the next stage's input (B, H / 2, W / 2, 2 C) or None.
        """
        _, height, width, _ = x.shape
        regular = make_grid(height, width, self.window, shifted=False)
        shifted = make_grid(height, width, self.window, shifted=True)
        mask = shift_mask(shifted, x.device)
        for index, block in enumerate(self.blocks):
            assert isinstance(block, SwinBlock)
            factors = block.draw(x)
            args = (x, shifted, mask, factors) if index % 2 else (x, regular, None, factors)
            x = checkpoint(block, *args, use_reentrant=False) if recompute else block(*args)
        return x, None if self.downsample is None else self.downsample(x)


class SwinBackbone(nn.Module):
    """Base of classifier and feature pyramid: patch embedding and the first `num_stages` stages."""

    def __init__(self, config: SwinConfig, num_stages: int) -> None:
        super().__init__()
        self.config = config
        self.grad_checkpointing = False
        self.patch_embed = PatchEmbed(config.patch_size, config.in_chans, config.embed_dim, config.patch_norm)
        self.pos_drop = nn.Dropout(config.proj_drop)
        self.layers = nn.ModuleList(
            SwinStage(config, stage, downsample=stage + 1 < num_stages) for stage in range(num_stages)
        )

    def stages(self, x: Tensor, merged: bool = False) -> Iterator[Tensor]:
        """Yields each stage's map before it is merged: (B, in_chans, H, W) -> (B, H / stride, W / stride, dim) each.

        With `merged`, the maps behind the merging, of half the size and twice the channels; the last stage needs one.
        """
        recompute = self.grad_checkpointing and torch.is_grad_enabled()
        y = self.pos_drop(self.patch_embed(x))
        for layer in self.layers:
            x, y = layer(y, recompute)
            yield y if merged else x

    def no_weight_decay(self) -> set[str]:
        """Returns names of the bias tables, which are positions; norms and biases are for the optimizer."""
        return {name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Returns the depth of each parameter for layer-wise rates, as timm's optimizers read it: patterns to numbers.

        A merging counts with the last block before it. `coarse` makes each stage one layer.
        """
        if coarse:
            return {"stem": r"^patch_embed", "blocks": r"^layers\.(\d+)"}
        merging = [(rf"^layers\.({i})\.downsample", (d - 1,)) for i, d in enumerate(self.config.depths)]
        blocks = [*merging, (r"^layers\.(\d+)\.blocks\.(\d+)", None), (r"^norm", (99999,))]
        return {"stem": r"^patch_embed", "blocks": blocks}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes each block in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable


class SwinTransformer(SwinBackbone):
    """The classifier: (B, in_chans, H, W) -> (B, num_classes).

    Args:
        config: The shape, see :class:`SwinConfig`.
    """

    def __init__(self, config: SwinConfig) -> None:
        super().__init__(config, num_stages=len(config.depths))
        self.num_classes = config.num_classes
        self.num_features = config.dims[-1]
        self.norm = nn.LayerNorm(self.num_features)
        self.head_drop = nn.Dropout(config.drop_rate)
        self.head = _classifier(self.num_features, config.num_classes)
        self.apply(init_weights)

    def forward_features(self, x: Tensor) -> Tensor:
        """Computes the last stage's normalised map: (B, H / 32, W / 32, num_features), channels last."""
        *_, x = self.stages(x)
        return self.norm(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Averages over the map and classifies: (B, h, w, num_features) -> (B, num_classes).

        With `pre_logits`, or without classes, the pooled features (B, num_features) are returned.
        """
        x = self.head_drop(x.mean(dim=(1, 2)))
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (B, in_chans, H, W) to logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """Returns the last layer: a Linear, or an Identity without classes."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the last layer by a freshly initialised one; 0 removes it."""
        weight = self.norm.weight
        self.num_classes = num_classes
        self.head = _classifier(self.num_features, num_classes).to(device=weight.device, dtype=weight.dtype)
        init_weights(self.head)


class SwinFeatures(SwinBackbone):
    """The feature pyramid for dense tasks: (B, in_chans, H, W) -> one normalised map (B, C, h, w) per chosen stage.

    Each chosen stage has its own LayerNorm (`norm0`, `norm1`, … as in the paper's detection code); stages behind the
    last chosen one are not built. The maps are views in channels-last memory format.

    Args:
        config: The shape; `num_classes` is not used.
        out_indices: Stages to return, ascending, from 0.
    """

    def __init__(self, config: SwinConfig, out_indices: Sequence[int] | None = None) -> None:
        every = tuple(range(len(config.depths)))
        chosen = every if out_indices is None else tuple(out_indices)
        if not chosen or list(chosen) != sorted(set(chosen) & set(every)):
            raise ValueError(f"out_indices must be ascending stages out of {every}, not {chosen}")
        super().__init__(config, num_stages=chosen[-1] + 1)
        self.out_indices = chosen
        self.channels = tuple(config.dims[stage] for stage in chosen)
        self.strides = tuple(config.strides[stage] for stage in chosen)
        self.num_features = self.channels[-1]
        for stage in chosen:
            self.add_module(f"norm{stage}", nn.LayerNorm(config.dims[stage]))
        self.apply(init_weights)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = enumerate(self.stages(x))
        return [self.get_submodule(f"norm{i}")(y).permute(0, 3, 1, 2) for i, y in maps if i in self.out_indices]


def _classifier(features: int, classes: int) -> nn.Module:
    return nn.Linear(features, classes) if classes else nn.Identity()


def init_weights(module: nn.Module) -> None:
    """Initialises as the paper: linear layers from a narrow normal distribution, biases 0, norms the identity."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        module.reset_parameters()
