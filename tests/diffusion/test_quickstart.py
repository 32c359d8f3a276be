"""What the quickstart comes to: its digits, read by a classifier of scikit-learn's that has learnt real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from diffusion import load_sampler
from diffusion.config import DiffusionConfig
from diffusion.data.open import open_split
from diffusion.metrics.distances import squared_distances
from diffusion.metrics.frechet import Moments, frechet_distance
from diffusion.validation import validation_reader
from engine.config.load import load_config
from engine.data.batch_plan import Draw
from tests.diffusion.small import TRAIN
from tests.diffusion.test_generator import ALONE
from tests.diffusion.test_training import run
from tests.environment import ROOT

COUNT = 500
RECIPE = ROOT / "configs" / "diffusion" / "quickstart.yaml"
FLOW = ["diffusion.objective=flow", "diffusion.schedule={name: flow}"]
EPS = ["diffusion.objective=eps", "diffusion.schedule={name: cosine, steps: 1000}"]


def small(images: list[Image.Image]) -> Tensor:
    """Images (N, 64) as scikit-learn has them: 8 x 8, by means of areas, 0 to 16."""
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).double()
    return (adaptive_avg_pool2d(pixels[:, None], 8) * 16 / 255).flatten(1)


def frechet(one: Tensor, other: Tensor) -> float:
    moments = [Moments(64, torch.device("cpu")) for _ in range(2)]
    for sums, features in zip(moments, (one, other), strict=True):
        sums.add(features)
    return frechet_distance(*(sums.over_ranks(ALONE) for sums in moments))


@pytest.mark.full
@pytest.mark.parametrize(
    ("settings", "least"), [([], 0.96), (FLOW, 0.9), (EPS, 0.9)], ids=["quickstart", "flow", "eps"]
)
def test_digits_are_read_as_those_that_were_asked_for(tmp_path: Path, settings: list[str], least: float) -> None:
    run(1, [*TRAIN, "--config", str(RECIPE), f"experiment.root={tmp_path}", *settings])
    config, (real, numbers) = load_config(DiffusionConfig, RECIPE), load_digits(return_X_y=True)
    images = open_split(config.data, "train")
    reader = validation_reader(images, config)
    trained_on = small([Image.fromarray(reader[Draw(i, 0, i)]["image"][0].numpy()) for i in range(len(images))])
    judge, read = SVC(gamma=0.001, C=10).fit(real, numbers), []
    for sampler, steps in (("ddim", 50), ("dpmpp", 20)):
        chosen = [f"diffusion.sampling.sampler={sampler}", f"diffusion.sampling.steps={steps}"]
        made = small(load_sampler(tmp_path / "experiment_0001", device="cpu", overrides=chosen)(COUNT))
        read.append(float((judge.predict(made.numpy()) == np.arange(COUNT) % 10).mean()))
        distance, nearest = frechet(made, trained_on), squared_distances(made, trained_on).min(1).values.sqrt()
        copies = float((nearest < 8).double().mean())
        print(f"{sampler} {steps}: read {read[-1]}, Frechet {distance:.3g}, nearest {nearest.median():.3g}, {copies}")
        if not settings:
            assert distance <= 22 and nearest.median() >= 11 and copies <= 0.02
    assert min(read) >= least and abs(read[0] - read[1]) <= 0.02
