"""Randomness that depends on what is drawn and never on when, by which process or in which order.

Every random decision about data has a key, such as ``(seed, "augmentation", epoch, position)``; the key is hashed and
the hash seeds a generator for this decision alone. A resumed run therefore needs no saved generator for its data.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.random.mtrand import get_bit_generator, set_bit_generator


def derive(*keys: int | str) -> int:
    """Derives a number in [0, 2**64) from the given keys; any change of a key or of their order gives an unrelated one.

    The same on every machine and in every version of Python and numpy.
    """
    text = repr(tuple(key if isinstance(key, str) else int(key) for key in keys))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(*keys: int | str) -> np.random.Generator:
    """Makes a numpy generator of its own for the given keys."""
    return np.random.Generator(np.random.PCG64(derive(*keys)))


@contextmanager
def torch_randomness(seed: int) -> Iterator[None]:
    """Seeds torch's global generator (CPU) for the block, and puts its state back after. Costs 2 microseconds.

    Args:
        seed: in [0, 2**64), as :func:`derive` gives it.
    """
    state = torch.default_generator.get_state()
    try:
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        torch.default_generator.set_state(state)


@contextmanager
def sample_randomness(seed: int) -> Iterator[None]:
    """Seeds the global generators of ``random``, numpy and torch (CPU) for the block, and puts their states back after.

    For code of others that draws from global generators: torchvision's transforms from torch's, timm's from the other
    two. Costs about 30 microseconds, since numpy's generator is exchanged instead of copied; ``np.random.seed`` must
    not be called inside.

    Args:
        seed: in [0, 2**64), as :func:`derive` gives it.
    """
    python_state = random.getstate()
    numpy_generator = get_bit_generator()
    try:
        random.seed(seed)
        set_bit_generator(np.random.PCG64(seed))
        with torch_randomness(seed):
            yield
    finally:
        random.setstate(python_state)
        set_bit_generator(numpy_generator)
