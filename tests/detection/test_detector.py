"""From 8-bit images to boxes."""

from __future__ import annotations

import pytest
import torch

from detection.detector import Detector
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from tests.detection.small import config_of

ALONE = Ranks(Layout(), torch.device("cpu"))
IMAGES = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)


@pytest.mark.parametrize(("loss", "outputs"), [("cross_entropy", 4), ("focal", 3)])
def test_a_softmax_has_an_output_more(loss: str, outputs: int) -> None:
    torch.manual_seed(0)
    detector = Detector(config_of(loss={"classification": loss}), ["a", "b", "c"], ALONE)
    detector.model.eval()
    with torch.inference_mode():
        output = detector.forward(detector.model, IMAGES)
        found = detector.detect(detector.model, IMAGES)
    assert output.logits.shape[-1] == outputs
    assert found.labels.max() < 3
    if loss == "focal":
        assert output.logits.sigmoid().mean() < 0.05, "starts as if nearly all were background"


def test_images_are_normalised_by_the_backbones_values() -> None:
    detector = Detector(config_of(), ["a", "b"], ALONE)
    seen = []
    detector.forward(lambda x: seen.append(x), IMAGES)  # type: ignore[arg-type]
    ready = detector.preprocessing
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (ready.mean, ready.std))
    torch.testing.assert_close(seen[0], (IMAGES / 255 - mean) / std)


def test_channels_last_is_the_same_but_for_rounding() -> None:
    found, layouts = [], list[bool]()
    for channels_last in (False, True):
        torch.manual_seed(0)
        detector = Detector(config_of(training={"channels_last": channels_last}), ["a", "b"], ALONE)
        detector.model.eval()
        with torch.inference_mode():
            found.append(detector.forward(detector.model, IMAGES).logits)
            detector.forward(lambda x: layouts.append(x.is_contiguous(memory_format=torch.channels_last)), IMAGES)  # type: ignore[arg-type]
    assert layouts == [False, True]
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)
