"""Swin Transformer, readable beside the paper: classifier, feature pyramid and weights from anywhere.

What needs torch is imported when it is first asked for, so that shapes (:mod:`swin.config`) can be checked without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from swin.config import SwinConfig

if TYPE_CHECKING:
    from swin.model import SwinFeatures, SwinTransformer
    from swin.variants import swin_base, swin_large, swin_small, swin_tiny
    from swin.weights import LoadReport, WeightsError, load_swin_weights

__all__ = [
    "LoadReport",
    "SwinConfig",
    "SwinFeatures",
    "SwinTransformer",
    "WeightsError",
    "load_swin_weights",
    "swin_base",
    "swin_large",
    "swin_small",
    "swin_tiny",
]


def __getattr__(name: str) -> Any:
    for module in ("swin.model", "swin.variants", "swin.weights") if name in __all__ else ():
        if hasattr(import_module(module), name):
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'swin' has no attribute '{name}'")
