from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffusion.metrics.frechet import Moments, frechet_distance
from diffusion.metrics.inception import CLASSES, WEIGHTS, InceptionScore, find_inception
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks

ALONE = Ranks(Layout(), torch.device("cpu"))


def score(logits: Tensor, batch: int = 7) -> float:
    sums = InceptionScore(len(logits), ALONE.device, logits.shape[1])
    for numbers in torch.randperm(len(logits), generator=torch.Generator().manual_seed(1)).split(batch):
        sums.add(numbers, logits[numbers])
    return sums.over_ranks(ALONE)


def test_sure_answers_of_all_classes_score_their_number_and_unsure_ones_1() -> None:
    logits = 60.0 * torch.eye(4).repeat_interleave(500, 0)
    assert score(logits) == pytest.approx(4, rel=0.02)
    assert score(torch.zeros(40, 5)) == pytest.approx(1)
    assert score(torch.zeros(3, 5)) == pytest.approx(1), "fewer images than parts"


def test_the_score_is_that_of_torch_fidelity() -> None:
    module = pytest.importorskip("torch_fidelity.metric_isc", reason="ours is compared with it")
    logits = 3 * torch.randn(103, CLASSES, generator=torch.Generator().manual_seed(0))
    theirs = module.isc_features_to_metric(logits)["inception_score_mean"]
    assert score(logits) == pytest.approx(theirs, rel=1e-9)


def test_without_weights_there_is_no_inception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    assert find_inception(ALONE) is None


def test_fid_is_that_of_torch_fidelity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With weights drawn at random, since Inception's own are downloaded by nobody here."""
    theirs = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", reason="ours is compared with it")
    fid = pytest.importorskip("torch_fidelity.metric_fid")
    names = ["2048", "logits_unbiased"]
    with monkeypatch.context() as patched:
        patched.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: {})
        patched.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = theirs.FeatureExtractorInceptionV3("inception-v3-compat", names)
    (tmp_path / "checkpoints").mkdir()
    torch.save(network.state_dict(), tmp_path / "checkpoints" / WEIGHTS)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    found = find_inception(ALONE)
    assert found is not None and found.name.startswith("Inception of torch-fidelity ")
    images = torch.randint(0, 256, (6, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, logits = network(images.expand(-1, 3, -1, -1))
    mine = found(images)
    torch.testing.assert_close(mine, (features, logits))
    sets = []
    for rows in (mine[0][:3], mine[0][3:]):
        moments = Moments(64, ALONE.device)
        moments.add(rows[:, :64])
        sets.append(moments.over_ranks(ALONE))
    statistics = [fid.fid_features_to_statistics(rows[:, :64].double()) for rows in (features[:3], features[3:])]
    expected = fid.fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    scale = math.sqrt(float(sets[0].covariance.trace() * sets[1].covariance.trace()))
    assert frechet_distance(*sets) == pytest.approx(expected, abs=1e-4 * scale)
