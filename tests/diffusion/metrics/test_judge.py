"""A real classifier as the judge of images, and folders that hold none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from classification import load_classifier
from diffusion.metrics.judge import open_judge
from diffusion.metrics.spaces import Judged
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.images.lazy_image import LazyImage
from tests.distributed import run_ranks

ALONE = Ranks(Layout(), torch.device("cpu"))
KEY = "evaluation.judge"
DIGITS = [str(digit) for digit in range(10)]


def images() -> torch.Tensor:
    return torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def judged(ranks: Ranks, folder: str) -> list[torch.Tensor]:
    space = Judged(open_judge(Path(folder), ranks, KEY), (1, 8, 8), DIGITS, ranks.device, "judge", KEY)
    features, classes = space(images())
    assert classes is not None and features.shape[1] == space.width
    return [features.clone(), classes.clone()]


def test_a_classifier_judges_as_it_does_files(classifier: Path) -> None:
    features, classes = judged(ALONE, str(classifier))
    loaded = load_classifier(classifier)
    files = [Image.fromarray(image[0].numpy()) for image in images()]
    assert [answer.classes for answer in loaded(files)] == [(DIGITS[number],) for number in classes.tolist()]
    model, inputs = (
        loaded.inference.model,
        torch.stack([loaded.inference.transform(LazyImage.of(f.convert("RGB"))) for f in files]),
    )
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(loaded.inference.classifier.normalized(inputs)), True)
    torch.testing.assert_close(features, expected)


def test_every_rank_has_the_judge(classifier: Path) -> None:
    one, other = run_ranks(2, judged, str(classifier))
    assert all(torch.equal(*parts) for parts in zip(one, other, strict=True))


def test_what_is_no_classifier_cannot_judge(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^evaluation\.judge: .*/none is no experiment folder .*name a trained"):
        open_judge(tmp_path / "none", ALONE, KEY)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({}))
    with pytest.raises(UserError, match=r"^evaluation\.judge: .* has no checkpoint yet; train it first"):
        open_judge(tmp_path, ALONE, KEY)


def test_a_task_without_classes_cannot_judge(classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("classification.inference.ClassificationInference.features")
    with pytest.raises(UserError, match=r"^evaluation\.judge: .*_0001 is an experiment of classification, which tells"):
        open_judge(classifier, ALONE, KEY)


def evaluated(judge):
    judge.model.eval()
    return judge


def test_mirrored_images_leave_the_features_alone(classifier: Path) -> None:
    plain, mirrored = (load_classifier(classifier, overrides=o).inference for o in ([], ["evaluation.tta=flip"]))
    inputs = torch.stack(
        [plain.transform(LazyImage.of(Image.fromarray(image[0].numpy()).convert("RGB"))) for image in images()]
    )
    (features, probabilities), (same, other) = (judge.features(inputs) for judge in map(evaluated, (plain, mirrored)))
    assert torch.equal(features, same) and not torch.equal(probabilities, other)
