from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from diffusion.metrics import image_set
from diffusion.metrics.inception import Inception
from diffusion.metrics.measure import Found, Samples, Split, measure
from diffusion.metrics.names import directions
from diffusion.metrics.spaces import Judged, Pixels, Space
from engine.data.loaders import EvalBatch, EvalLoader
from engine.data.workers import WorkerSettings
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from tests.diffusion.metrics.judges import Brightness
from tests.distributed import run_ranks

ALONE = Ranks(Layout(), torch.device("cpu"))
CLASSES = ["dark", "bright"]


class Reader:
    """Images in memory, every other one bright, as a data set has them."""

    def __init__(self, count: int, seed: int, channels: int = 3) -> None:
        random = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(count) % 2
        shape = (count, channels, 8, 8)
        noise = torch.randint(0, 100, shape, dtype=torch.uint8, generator=random)
        self.images = noise + (150 * self.labels).to(torch.uint8).view(-1, 1, 1, 1)

    def __getitem__(self, draw) -> dict:
        return {"image": self.images[draw.index], "label": int(self.labels[draw.index])}

    def split(self, name: str, ranks: Ranks = ALONE, batch: int = 16) -> Split:
        count = len(self.images)
        return Split(name, count, "none", EvalLoader(self, count, batch, WorkerSettings(), ranks))

    def samples(self, ranks: Ranks = ALONE) -> Samples:
        """A rank's share, in no order."""
        own = torch.arange(len(self.images)).flip(0)[ranks.rank :: ranks.world_size]
        return Samples(len(self.images), own, self.images[own], self.labels[own])


def found(
    ranks: Ranks = ALONE, batch: int = 16, space: Space | None = None, samples: Samples | None = None, **options
) -> Found:
    space = space or Judged(Brightness(), (3, 8, 8), CLASSES, ranks.device, "a judge", "judge")
    reference, train = Reader(40, 1).split("val", ranks, batch), Reader(60, 2).split("train", ranks, batch)
    samples = samples or Reader(51, 0).samples(ranks)
    return measure(samples, reference, train, space, ranks, batch_size=batch, **options)


def test_what_is_measured_is_what_is_named() -> None:
    judged, pixels = found(), found(space=Pixels((3, 8, 8), ALONE.device))
    assert set(judged.metrics) == set(directions(judged=True))
    assert set(pixels.metrics) == set(directions(judged=False))
    assert judged.metrics["class_accuracy"] == 1 == judged.about["class_accuracy_of_reference"]
    assert judged.about["reference"] == "val" and judged.about["space"] == "a judge"
    assert [judged.about[key] for key in ("images", "reference_images", "train_images")] == [51, 40, 60]
    assert pixels.about["reference_resize"] == "none" and pixels.about["resize"] == "means of areas, 8 x 8 to 8 x 8"


def test_labels_that_the_judge_does_not_see_are_wrong() -> None:
    reader = Reader(50, 0)
    reader.labels[:10] = 1 - reader.labels[:10]
    assert found(samples=reader.samples()).metrics["class_accuracy"] == 0.8


def both(ranks: Ranks, batch: int) -> list:
    result = found(ranks, batch)
    return [result.metrics, [(copy.sample, copy.train, copy.image.tolist()) for copy in result.nearest]]


def test_neither_ranks_nor_batches_make_a_difference() -> None:
    metrics, nearest = both(ALONE, 16)
    assert len(nearest) == 16
    for ranks in (1, 2, 3):
        for result in run_ranks(ranks, both, 7):
            assert result[0] == pytest.approx(metrics, rel=1e-9, abs=1e-9) and result[1] == nearest


def test_the_reference_itself_is_at_no_distance() -> None:
    metrics = found(samples=Reader(40, 1).samples()).metrics
    assert metrics["frechet_distance"] == pytest.approx(0, abs=1e-6)
    assert metrics["precision"] == metrics["recall"] == 1
    assert metrics["channel_shift"] == 0


def test_a_shift_of_one_channel_is_seen() -> None:
    reader = Reader(40, 1)
    reader.images[:, 2] += 3
    assert found(samples=reader.samples()).metrics["channel_shift"] == pytest.approx(3)


def test_copies_of_training_images_are_counted_and_shown() -> None:
    reader, train = Reader(50, 0), Reader(60, 2)
    reader.images[[3, 14, 31, 44, 45]] = train.images[[9, 8, 7, 6, 5]]
    space = Pixels((3, 8, 8), ALONE.device)
    result = found(samples=reader.samples(), space=space, copy_distance=1.0)
    assert result.metrics["copies"] == 0.1 and result.about["copy_distance"] == 1
    nearest = {copy.sample: copy for copy in result.nearest[:5]}
    assert {number: copy.train for number, copy in nearest.items()} == {3: 9, 14: 8, 31: 7, 44: 6, 45: 5}
    assert (nearest[14].image == train.images[8].permute(1, 2, 0).numpy()).all() and nearest[14].distance < 1e-4
    assert found(samples=reader.samples(), space=space, copy_distance=255.0).metrics["copies"] == 1


def test_what_counts_as_a_copy_follows_from_held_out_images() -> None:
    space = Pixels((3, 8, 8), ALONE.device)
    honest, copied = found(space=space), found(samples=Reader(60, 2).samples(), space=space)
    assert honest.metrics["copies"] < 0.1 and copied.metrics["copies"] == 1
    assert 0 < honest.about["copy_distance"] < honest.about["nearest_train_of_reference"]


def test_training_images_as_reference_say_nothing_about_what_is_a_copy() -> None:
    train, space = Reader(60, 2), Pixels((3, 8, 8), ALONE.device)
    result = measure(Reader(50, 0).samples(), train.split("train"), train.split("train"), space, ALONE)
    assert "copies" not in result.metrics and result.metrics["nearest_train"] > 0


def test_without_training_images_nothing_is_looked_for_among_them() -> None:
    space = Pixels((3, 8, 8), ALONE.device)
    result = measure(Reader(50, 0).samples(), Reader(40, 1).split("val"), None, space, ALONE)
    assert set(result.metrics) == set(directions(judged=False, novelty=False)) and not result.nearest


def test_of_many_images_some_are_compared_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_set, "MOST_COMPARED", 20)
    result = found()
    assert result.about["compared_one_by_one"] == [17, 20]
    assert result.metrics["frechet_distance"] > 0


def test_an_image_that_is_left_out_is_noticed() -> None:
    def without_last() -> Iterator[EvalBatch]:
        *batches, _ = Reader(40, 1).split("val").batches
        yield from batches

    space = Pixels((3, 8, 8), ALONE.device)
    with pytest.raises(AssertionError, match="left out"):
        measure(Reader(50, 0).samples(), Split("val", 40, "none", without_last()), None, space, ALONE)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(UserError, match=r"^3 samples: 3 image\(s\) are too few to be measured; it takes at least 4"):
        found(samples=Reader(3, 0).samples())


class Extractor(torch.nn.Module):
    """Stands for torch-fidelity's: colours of parts as features, and as logits."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        assert images.dtype == torch.uint8 and images.shape[1] == 3
        colours = images.double().mean((2, 3))
        return colours, torch.nn.functional.pad(colours / 50, (0, 1005))


def test_inception_is_measured_beside() -> None:
    inception = Inception(Extractor(), ALONE.device, "stand-in")
    inception.width = 3
    result = found(inception=inception)
    assert set(result.metrics) == set(directions(judged=True, inception=True))
    assert result.metrics["fid"] == pytest.approx(result.metrics["frechet_distance"], rel=0.01)
    assert result.about["inception"] == {"network": "stand-in", "resize": Inception.resize}
