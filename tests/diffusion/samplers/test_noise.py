from __future__ import annotations

import torch

from diffusion.samplers.noise import first_noise, step_noise

SHAPE = (1, 8, 8)
CPU = torch.device("cpu")


def test_noise_follows_from_seed_image_and_step_alone() -> None:
    together = first_noise(5, [0, 1, 2, 3], SHAPE)
    assert torch.equal(first_noise(5, [3, 1], SHAPE), together[[3, 1]])
    steps = step_noise(5, [0, 1, 2, 3], SHAPE, CPU)
    assert torch.equal(step_noise(5, [2], SHAPE, CPU)(7), steps(7)[2:3])
    assert torch.equal(steps(7), steps(7)), "asked again, it is the same"


def test_no_noise_comes_twice() -> None:
    drawn = [first_noise(seed, range(3), SHAPE) for seed in (0, 1)]
    drawn += [step_noise(seed, range(3), SHAPE, CPU)(step) for seed in (0, 1) for step in (0, 1)]
    rows = torch.cat(drawn).flatten(1)
    assert rows.dtype == torch.float32 and len(rows.unique(dim=0)) == 18
    assert (torch.corrcoef(rows) - torch.eye(18)).abs().max() < 0.6
