"""A photograph for tests of what is done to pixels."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@cache
def photograph(width: int = 224, height: int = 160) -> NDArray[np.uint8]:
    """scikit-learn's temple in a size, (height, width, 3)."""
    from sklearn.datasets import load_sample_images

    return np.array(Image.fromarray(load_sample_images().images[0]).resize((width, height)))
