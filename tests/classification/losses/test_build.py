"""From the `loss` section to the loss: what each key does, and what is refused."""

from __future__ import annotations

import logging
import re
from math import log

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch.nn import functional as F

from classification.losses.build import build_training_loss, warn_of_balancing_twice
from classification.losses.sections import LossConfig, loss_fault
from engine.datasets.labelled import ArrayImages
from engine.datasets.sections import DigitsData
from engine.errors import UserError
from tests.sections import section

CPU = torch.device("cpu")
ONE_LABEL = ArrayImages(["a", "b", "c"], np.repeat([0, 1, 2], [1, 3, 12]), np.zeros((16, 2, 2), np.uint8))
LOGITS = torch.tensor([[1.0, -0.5, 0.25], [2.0, 0.5, -3.0], [0.0, 1.0, 1.5]])
LABELS = torch.tensor([0, 1, 2])
SEVERAL = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])


class SeveralLabels:
    """Four images of three classes: the first in two of them, the second in one, the third in all."""

    classes = ["a", "b", "c"]
    multi_label = True
    labels = np.array([[1, 0, 1], [0, 0, 1], [1, 1, 1], [0, 0, 1]], np.uint8)

    def __len__(self) -> int:
        return 4

    def image(self, index: int) -> Image.Image:
        return Image.new("RGB", (2, 2))

    def name(self, index: int) -> str:
        return str(index)


def one_label(targets: torch.Tensor = LABELS, **keys) -> torch.Tensor:
    return build_training_loss(section(LossConfig, **keys), ONE_LABEL, CPU)(LOGITS, targets)


def several_labels(**keys) -> torch.Tensor:
    return build_training_loss(section(LossConfig, **keys), SeveralLabels(), CPU)(LOGITS, SEVERAL)


def test_cross_entropy_is_the_default():
    assert torch.equal(one_label(), F.cross_entropy(LOGITS, LABELS, reduction="none"))
    smoothed = F.cross_entropy(LOGITS, LABELS, reduction="none", label_smoothing=0.1)
    assert torch.equal(one_label(label_smoothing=0.1), smoothed)


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "bce"])
def test_a_images_loss_is_multiplied_by_the_weight_of_its_class(name):
    """Inverse weights of 1, 3 and 12 images: 36/17, 12/17, 3/17."""
    weights = torch.tensor([36 / 17, 12 / 17, 3 / 17])
    plain, weighted = one_label(name=name), one_label(name=name, class_weights="inverse")
    torch.testing.assert_close(weighted, plain * weights)
    mixed = one_label(F.one_hot(LABELS, 3) * 0.5 + F.one_hot(LABELS.roll(1), 3) * 0.5, name=name)
    assert mixed.isfinite().all()


def test_the_mean_of_weighted_losses_is_that_of_its_parts():
    """So neither ranks nor micro-batches change it; torch's weighted mean divides by each batch's own weights."""
    loss = build_training_loss(section(LossConfig, class_weights="log"), ONE_LABEL, CPU)
    parts = [loss(LOGITS[i : i + 1], LABELS[i : i + 1]).mean() for i in range(3)]
    torch.testing.assert_close(torch.stack(parts).mean(), loss(LOGITS, LABELS).mean())


def test_tau_is_the_share_of_the_log_priors():
    priors = torch.tensor([1 / 16, 3 / 16, 12 / 16]).log()
    expected = F.cross_entropy(LOGITS + 1.5 * priors, LABELS, reduction="none")
    torch.testing.assert_close(one_label(name="logit_adjusted", tau=1.5), expected)
    torch.testing.assert_close(one_label(name="logit_adjusted", tau=0.0), one_label())


def test_alpha_of_one_label_is_a_factor():
    plain = one_label(name="focal", gamma=1.5)
    torch.testing.assert_close(one_label(name="focal", gamma=1.5, alpha=0.25), 0.25 * plain)
    by_class = one_label(name="focal", gamma=1.5, alpha=[0.5, 1.0, 2.0])
    torch.testing.assert_close(by_class, torch.tensor([0.5, 1.0, 2.0]) * plain)
    both = one_label(name="focal", gamma=1.5, alpha=0.25, class_weights="inverse")
    torch.testing.assert_close(both, 0.25 * torch.tensor([36 / 17, 12 / 17, 3 / 17]) * plain)


def test_positive_weights_make_a_label_and_its_absence_weigh_the_same():
    """Of four images two show a, one b, all four c (whose missing images count as one)."""
    for given, factors in (("inverse", [1.0, 3.0, 0.25]), (2.0, [2.0] * 3), ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])):
        expected = F.binary_cross_entropy_with_logits(
            LOGITS, SEVERAL, pos_weight=torch.tensor(factors), reduction="none"
        )
        torch.testing.assert_close(several_labels(name="bce", pos_weight=given), expected.mean(dim=1))


def test_class_weights_of_several_labels_weigh_each_label():
    """Inverse weights of 2, 1 and 4 labels: 2/4, 4/4, 1/4, times 3 over 7/4."""
    weights = torch.tensor([2 / 4, 4 / 4, 1 / 4]) * 12 / 7
    plain = F.binary_cross_entropy_with_logits(LOGITS, SEVERAL, reduction="none")
    torch.testing.assert_close(several_labels(name="bce", class_weights="inverse"), (plain * weights).mean(dim=1))


def test_focal_and_asymmetric_loss_of_several_labels_take_their_settings():
    from torchvision.ops import sigmoid_focal_loss

    expected = sigmoid_focal_loss(LOGITS, SEVERAL, alpha=0.25, gamma=3.0).mean(dim=1)
    torch.testing.assert_close(several_labels(name="focal", gamma=3.0, alpha=0.25), expected)
    plain = several_labels(name="asymmetric", gamma_pos=0.0, gamma_neg=0.0, clip=0.0)
    torch.testing.assert_close(plain, several_labels(name="bce"))
    one_yes = build_training_loss(section(LossConfig, name="asymmetric", gamma_pos=2.0), SeveralLabels(), CPU)
    found = one_yes(torch.zeros(1, 3), torch.ones(1, 3))
    assert float(found) == pytest.approx(0.25 * log(2))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "asymmetric"}, "loss.name: asymmetric is for several labels .* set loss.name: cross_entropy"),
        ({"name": "bce", "pos_weight": 2.0}, "loss.pos_weight: only for several labels"),
        ({"name": "focal", "alpha": [1.0, 2.0, 3.0], "class_weights": "log"}, "loss.alpha: .* keep one"),
    ],
)
def test_what_does_not_fit_one_label(keys, message):
    assert re.match(message, loss_fault(section(LossConfig, **keys), multi_label=False))


def test_lists_have_a_number_for_each_class():
    with pytest.raises(UserError, match=r"loss\.alpha: 2 numbers for 3 classes"):
        one_label(name="focal", alpha=[1.0, 2.0])
    with pytest.raises(UserError, match=r"loss\.pos_weight: 1 numbers for 3 classes"):
        several_labels(name="bce", pos_weight=[1.0])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "loss.name: cross_entropy is for one label .* set loss.name: bce"),
        ({"name": "logit_adjusted"}, "loss.name: logit_adjusted is for one label .* set loss.name: bce"),
        ({"name": "focal", "alpha": 1.0}, "loss.alpha: .* must be below 1"),
        ({"name": "focal", "alpha": [0.5, 0.5, 2.0]}, "loss.alpha: .* must be below 1"),
    ],
)
def test_what_does_not_fit_several_labels(keys, message):
    assert re.match(message, loss_fault(section(LossConfig, **keys), multi_label=True))


@pytest.mark.parametrize("keys", [{"class_weights": "effective_number"}, {"name": "logit_adjusted"}])
def test_what_needs_images_of_each_class(keys):
    images = ArrayImages(["a", "b", "c"], np.array([0, 0, 2]), np.zeros((3, 2, 2), np.uint8))
    with pytest.raises(UserError, match="without any: b;"):
        build_training_loss(section(LossConfig, **keys), images, CPU)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"gamma": 1.0}, "gamma\n  Extra inputs"),
        ({"name": "bce", "tau": 2.0, "clip": 0.1}, "tau\n  Extra inputs"),
        ({"name": "focal", "pos_weight": "inverse"}, "pos_weight\n  Extra inputs"),
        ({"class_weights": "inverse", "beta": 0.9}, "beta: has an effect only with class_weights: effective_number"),
        ({"name": "logit_adjusted", "class_weights": "log"}, "counted twice"),
        ({"name": "focal", "gamma": -1.0}, "gamma"),
        ({"name": "focal", "alpha": float("nan")}, "alpha"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"class_weights": "inverze"}, "class_weights"),
    ],
)
def test_settings_that_cannot_work(keys, message):
    with pytest.raises(ValidationError, match=message):
        section(LossConfig, **keys)


def test_a_written_out_configuration_is_read_back():
    for keys in ({}, {"name": "focal", "alpha": [0.5, 1.0]}, {"name": "bce", "pos_weight": 3.0}):
        config = section(LossConfig, **keys)
        assert type(config).model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("config", "data", "words"),
    [
        (
            {"class_weights": "log"},
            {"sampling": "balanced"},
            "data.sampling: balanced and loss.class_weights: log both",
        ),
        ({"name": "logit_adjusted"}, {"oversample": 0.5}, "data.oversample: 0.5 and loss.name: logit_adjusted both"),
        ({"class_weights": "log"}, {}, ""),
        ({"name": "focal"}, {"sampling": "balanced"}, ""),
    ],
)
def test_balancing_twice_is_said(config, data, words, caplog):
    with caplog.at_level(logging.WARNING):
        warn_of_balancing_twice(section(LossConfig, **config), DigitsData(source="digits", **data))
    assert words in caplog.text and bool(words) == bool(caplog.text)
