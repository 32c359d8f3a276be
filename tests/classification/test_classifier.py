"""Test-time augmentation: the probabilities of an image and of its mirror image, averaged."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from classification.classifier import Classifier, mean_of_two
from engine.images.preprocessing import Preprocessing

SQUARE = Preprocessing(4, 4, "squash", 1.0, "bilinear", (0.5, 0.4, 0.3), (0.2, 0.25, 0.5))


@pytest.mark.parametrize("multi_label", [False, True])
def test_probabilities_are_the_means_of_both(multi_label):
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 50, 7, generator=generator).mul(5)
    said = torch.sigmoid if multi_label else (lambda logits: logits.softmax(1))
    found = said(mean_of_two(one, other, multi_label))
    torch.testing.assert_close(found, (said(one.double()) + said(other.double())) / 2, rtol=1e-12, atol=1e-15)
    extreme = torch.tensor([[200.0, -200.0]])
    assert mean_of_two(extreme, extreme, multi_label).isfinite().all()


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_mirrored_image_is_said_the_same_and_without_it_is_not(multi_label):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    images = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)

    def logits(tta: str, batch: torch.Tensor) -> torch.Tensor:
        cpu = torch.device("cpu")
        asked = Classifier(SQUARE, 3, cpu, multi_label=multi_label, tta=tta, channels_last=False)
        return asked.logits(model, batch)

    torch.testing.assert_close(logits("flip", images), logits("flip", images.flip(3)))
    assert not torch.allclose(logits("none", images), logits("none", images.flip(3)))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (SQUARE.mean, SQUARE.std))
    torch.testing.assert_close(logits("none", images), model((images / 255 - mean) / std))
