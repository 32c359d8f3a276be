from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from classification.augmentation.mixing import MixingPlan, apply_mixing, plan_mixing
from classification.augmentation.sections import AugmentationConfig

SIZE = (12, 16)


def config(**keys) -> AugmentationConfig:
    return AugmentationConfig(**{"mixup": 0.8, "cutmix": 1.0, **keys})


def plan(given: AugmentationConfig, positions, *, seed=0, epoch=0, step=0, size=SIZE) -> MixingPlan:
    return plan_mixing(given, seed, epoch, step, positions, *size)


def rows(plan: MixingPlan) -> list[tuple]:
    parts = (plan.pixel_weights.tolist(), plan.boxes.tolist(), plan.target_weights.tolist())
    return list(zip(*parts, strict=True))


@pytest.mark.parametrize("mode", ["batch", "pair"])
@pytest.mark.parametrize("slots", [1, 2, 3, 6])
def test_plans_of_micro_batches_are_parts_of_the_global_plan(mode, slots):
    given = config(mixing_mode=mode)
    first, size = 24, 12 // slots
    whole = rows(plan(given, range(first, first + 12), epoch=3, step=2))
    parts = [rows(plan(given, range(p, p + size), epoch=3, step=2)) for p in range(first, first + 12, size)]
    assert [row for part in parts for row in part] == whole
    assert len({repr(row) for row in whole}) == (1 if mode == "batch" else 6)


@pytest.mark.parametrize("mode", ["batch", "pair"])
def test_plans_differ_by_seed_epoch_and_step(mode):
    given = config(mixing_mode=mode)
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    plans = [
        rows(plan(given, range(8 * step, 8 * step + 8), seed=seed, epoch=epoch, step=step))
        for seed, epoch, step in keys
    ]
    assert len({repr(found) for found in plans}) == len(keys)


@pytest.mark.parametrize("mode", ["batch", "pair"])
def test_a_last_image_without_neighbour_stays_as_it_is(mode):
    found = rows(plan(config(mixing_mode=mode), range(6, 11)))
    assert found[-1] == (1.0, [0, 0, 0, 0], 1.0)
    assert found[:-1] == rows(plan(config(mixing_mode=mode), range(6, 10)))
    images, labels = torch.rand(5, 3, *SIZE), torch.arange(5)
    mixed, targets = apply_mixing(images, labels, 5, plan(config(mixing_mode=mode), range(6, 11)))
    assert torch.equal(mixed[-1], images[-1])
    assert torch.equal(targets[-1], F.one_hot(labels, 5)[-1].float())


def test_pairs_torn_apart_are_a_bug():
    with pytest.raises(AssertionError, match="torn apart"):
        plan(config(), range(3, 7))


def test_mixup_adds_neighbours_and_their_labels():
    images, labels = torch.rand(4, 3, *SIZE), torch.tensor([2, 0, 1, 1])
    given = config(cutmix=None, mixing_mode="pair")
    drawn = plan(given, range(4))
    mixed, targets = apply_mixing(images, labels, 3, drawn)
    for own, other in ((0, 1), (1, 0), (2, 3), (3, 2)):
        weight = float(drawn.target_weights[own])
        assert 0 < weight < 1
        assert torch.allclose(mixed[own], weight * images[own] + (1 - weight) * images[other], atol=1e-6)
        expected = torch.zeros(3)
        expected[labels[own]] += weight
        expected[labels[other]] += 1 - weight
        assert torch.allclose(targets[own], expected, atol=1e-6)


def test_cutmix_fills_the_box_from_the_neighbour_and_weighs_labels_by_its_true_area():
    images, labels = torch.rand(64, 3, *SIZE), torch.arange(64)
    drawn = plan(config(mixup=None, mixing_mode="pair"), range(64))
    mixed, targets = apply_mixing(images, labels, 64, drawn)
    areas = set()
    for own in range(64):
        top, bottom, left, right = drawn.boxes[own].tolist()
        assert 0 <= top <= bottom <= SIZE[0]
        assert 0 <= left <= right <= SIZE[1]
        expected = images[own].clone()
        expected[:, top:bottom, left:right] = images[own ^ 1, :, top:bottom, left:right]
        assert torch.equal(mixed[own], expected)
        share = (bottom - top) * (right - left) / (SIZE[0] * SIZE[1])
        assert float(targets[own, own]) == pytest.approx(1 - share, abs=1e-6)
        assert float(targets[own, own ^ 1]) == pytest.approx(share, abs=1e-6)
        areas.add(share)
    assert len(areas) > 10


@pytest.mark.parametrize("keys", [{"cutmix": None}, {"mixup": None}])
def test_rows_of_several_labels_are_mixed_by_the_same_shares(keys):
    images, labels = torch.rand(4, 3, *SIZE), torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 1, 1]])
    drawn = plan(config(mixing_mode="pair", **keys), range(4))
    mixed, targets = apply_mixing(images, labels.float(), 3, drawn)
    for own in range(4):
        weight = float(drawn.target_weights[own])
        expected = weight * labels[own] + (1 - weight) * labels[own ^ 1]
        assert torch.allclose(targets[own], expected, atol=1e-6)
    alone = torch.tensor([0, 2, 1, 1])
    again = apply_mixing(images, F.one_hot(alone, 3).float(), 3, drawn)
    assert all(torch.equal(a, b) for a, b in zip(again, apply_mixing(images, alone, 3, drawn), strict=True))
    assert torch.equal(mixed, again[0])


def test_mixing_keeps_the_type_of_the_images():
    drawn = plan(config(cutmix=None), range(4))
    mixed, targets = apply_mixing(torch.rand(4, 3, *SIZE).bfloat16(), torch.arange(4), 4, drawn)
    assert (mixed.dtype, targets.dtype) == (torch.bfloat16, torch.float32)


def test_probabilities_of_mixing_and_of_cutmix():
    given = config(mixing_mode="pair", mixing_probability=0.6, cutmix_probability=0.25)
    found = rows(plan(given, range(8000), size=(224, 224)))[::2]
    mixed = [row for row in found if row != (1.0, [0, 0, 0, 0], 1.0)]
    assert len(mixed) / len(found) == pytest.approx(0.6, abs=0.03)
    assert sum(row[0] == 1.0 for row in mixed) / len(mixed) == pytest.approx(0.25, abs=0.03)
    off = config(mixing_mode="pair", mixing_probability=0.0)
    assert set(map(repr, rows(plan(off, range(100))))) == {repr((1.0, [0, 0, 0, 0], 1.0))}


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_strengths_are_distributed_as_timms(kind):
    from timm.data import Mixup

    alpha = 0.8
    given = AugmentationConfig(**{kind: alpha}, mixing_mode="pair")
    ours = plan(given, range(8000), size=(224, 224)).target_weights[::2].numpy()
    np.random.seed(0)
    timms = Mixup(mixup_alpha=alpha * (kind == "mixup"), cutmix_alpha=alpha * (kind == "cutmix"), mode="batch")
    images = torch.zeros(2, 3, 224, 224)
    theirs = np.array([timms._mix_batch(images) for _ in range(2000)])
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
        assert np.quantile(ours, quantile) == pytest.approx(np.quantile(theirs, quantile), abs=0.04)
