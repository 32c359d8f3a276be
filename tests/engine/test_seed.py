from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from engine.seed import derive, generator, sample_randomness


def test_derive_is_a_64_bit_number_that_never_changes():
    assert derive(0, "order", 3) == 16488431461137102602
    assert all(0 <= derive(seed) < 2**64 for seed in range(100))
    assert max(derive(seed) for seed in range(100)) > 2**60


def test_derive_tells_all_keys_apart():
    keys = [(1, 2), (2, 1), (12,), ("1", 2), ("12",), ("1, 2",), (1, "2"), (1, 2, 0), (), (-1, 2)]
    assert len({derive(*key) for key in keys}) == len(keys)


def test_derive_takes_numpy_integers_as_numbers():
    assert derive(np.int64(7), "order") == derive(7, "order")


def test_generator_repeats_for_equal_keys_only():
    assert np.array_equal(generator(1, "a").random(5), generator(1, "a").random(5))
    assert not np.array_equal(generator(1, "a").random(5), generator(2, "a").random(5))


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_sample_randomness_seeds_all_three_generators():
    with sample_randomness(2**64 - 1):
        first = draws()
    with sample_randomness(2**64 - 1):
        second = draws()
    with sample_randomness(5):
        other = draws()
    assert first == second
    assert all(a != b for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("fails", [False, True])
def test_sample_randomness_puts_the_former_states_back(fails):
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = [draws() for _ in range(2)]
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    found = [draws()]
    try:
        with sample_randomness(9):
            draws()
            if fails:
                raise KeyError
    except KeyError:
        pass
    found.append(draws())
    assert found == expected
