from __future__ import annotations

import pytest
import torch

from diffusion.metrics.spaces import Judged, Pixels
from engine.errors import UserError
from tests.diffusion.metrics.judges import Brightness

CPU = torch.device("cpu")
KEY = "evaluation.judge"


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 16), (3, 5, 40)])
def test_the_distance_of_pixels_is_their_difference_in_levels_whatever_the_size(shape: tuple[int, int, int]) -> None:
    space = Pixels(shape, CPU)
    dark, bright = (torch.full((1, *shape), level, dtype=torch.uint8) for level in (10, 250))
    features = space(torch.cat([dark, bright])).features
    assert features.shape == (2, space.width)
    assert float((features[0] - features[1]).norm()) == pytest.approx(240)


def test_pixels_of_digits_are_compared_at_their_own_size() -> None:
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    larger = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(Pixels((1, 8, 8), CPU)(images).features, Pixels((1, 16, 16), CPU)(larger).features)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_judge_sees_what_it_would_see_of_files(channels: int) -> None:
    space = Judged(Brightness(), (channels, 6, 6), ["dark", "bright"], CPU, "run", KEY)
    images = torch.tensor([200, 30], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, channels, 6, 6)
    features, classes = space(images)
    assert features.tolist() == [[200] * 3, [30] * 3] and space.width == 3
    assert classes is not None and classes.tolist() == [1, 0], "by the numbers of the images' own classes"
    assert space.resize == "as the judge does, 6 x 6 to 4 x 4"


def test_a_judge_of_images_without_classes_says_none() -> None:
    images = torch.zeros(2, 3, 6, 6, dtype=torch.uint8)
    assert Judged(Brightness(("a", "b")), (3, 6, 6), None, CPU, "run", KEY)(images).classes is None


def judged(judge: Brightness, channels: int = 3, classes: tuple[str, ...] = ("dark", "bright")) -> Judged:
    return Judged(judge, (channels, 6, 6), list(classes), CPU, "experiment_0007", KEY)


def test_a_judge_of_other_classes_is_refused() -> None:
    with pytest.raises(UserError, match=r"^evaluation\.judge: experiment_0007 .* lacks grey; .* same 3 classes"):
        judged(Brightness(), classes=("dark", "grey", "bright"))
    with pytest.raises(UserError, match=r"it lacks night and it also has dark; name a classifier"):
        judged(Brightness(), classes=("night", "bright"))


def test_a_judge_of_several_labels_an_image_is_refused() -> None:
    judge = Brightness()
    judge.multi_label = True
    with pytest.raises(UserError, match=r"^evaluation\.judge: experiment_0007 says several labels of an image"):
        judged(judge)


def test_a_judge_of_fewer_channels_is_refused() -> None:
    assert judged(Brightness(channels=1), channels=1).width == 1
    with pytest.raises(UserError, match=r"^evaluation\.judge: experiment_0007 .* 1 channel\(s\).* have 3; name a"):
        judged(Brightness(channels=1), channels=3)
