"""Swin Transformer, readable beside the paper: classifier, feature pyramid and weights from anywhere."""

from swin.config import SwinConfig
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
