"""The paper's four models (its section 3.3), with any field of :class:`SwinConfig` changed by keyword."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from swin.config import BASE, LARGE, SMALL, TINY, SwinConfig
from swin.model import SwinFeatures, SwinTransformer

SwinModel = SwinTransformer | SwinFeatures


def swin_tiny(*, features_only: bool = False, out_indices: Sequence[int] | None = None, **fields: Any) -> SwinModel:
    """Builds Swin-T: 96 channels, 2-2-6-2 blocks; 28 million parameters with 1000 classes.

    ``swin_tiny(num_classes=10, img_size=224, window_size=7, drop_path=0.2)`` is a classifier,
    ``swin_tiny(features_only=True)`` the feature pyramid of the stages `out_indices` (all of them by default).

    Args:
        features_only: Returns the stages' normalised maps, see :class:`SwinFeatures`, instead of class scores.
        out_indices: With `features_only`, the stages to return.
        fields: Fields of :class:`SwinConfig`.

    Raises:
        TypeError: for a name that SwinConfig does not have.
        ValueError: for an impossible value.
    """
    return _build(TINY, features_only, out_indices, fields)


def swin_small(*, features_only: bool = False, out_indices: Sequence[int] | None = None, **fields: Any) -> SwinModel:
    """Builds Swin-S: 96 channels, 2-2-18-2 blocks; 50 million parameters. Arguments as of :func:`swin_tiny`."""
    return _build(SMALL, features_only, out_indices, fields)


def swin_base(*, features_only: bool = False, out_indices: Sequence[int] | None = None, **fields: Any) -> SwinModel:
    """Builds Swin-B: 128 channels, 2-2-18-2 blocks; 88 million parameters. Arguments as of :func:`swin_tiny`."""
    return _build(BASE, features_only, out_indices, fields)


def swin_large(*, features_only: bool = False, out_indices: Sequence[int] | None = None, **fields: Any) -> SwinModel:
    """Builds Swin-L: 192 channels, 2-2-18-2 blocks; 197 million parameters. Arguments as of :func:`swin_tiny`."""
    return _build(LARGE, features_only, out_indices, fields)


def _build(
    config: SwinConfig, features_only: bool, out_indices: Sequence[int] | None, fields: dict[str, Any]
) -> SwinModel:
    if out_indices is not None and not features_only:
        raise ValueError("out_indices is for features_only=True")
    config = replace(config, **fields)
    return SwinFeatures(config, out_indices) if features_only else SwinTransformer(config)
