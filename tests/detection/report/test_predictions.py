"""Detections from batches of any rank to one table, the same for any number of ranks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from detection.boxes.postprocess import Detections, postprocess
from detection.boxes.sections import PostprocessConfig
from detection.data.annotations import Annotations
from detection.report.coco_metrics import coco_evaluate
from detection.report.metric_names import METRICS
from detection.report.predictions import WIDTH, as_coco, gather, rows
from engine.data.batch_plan import Draw
from engine.data.loaders import EvalLoader
from engine.data.workers import WorkerSettings
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from tests.detection.results import predictions, truth
from tests.detection.scenes import grid_priors
from tests.distributed import run_ranks

IMAGES = 101
ALONE = Ranks(Layout(), torch.device("cpu"))


class Outputs:
    """Predictions of each image that follow from its number."""

    def __getitem__(self, draw):
        generator = torch.Generator().manual_seed(draw.index)
        priors = len(grid_priors(4))
        return {
            "index": draw.index,
            "scores": 0.6 * torch.rand(priors, 3, generator=generator) ** 4 + 0.001 * (draw.index % 10 == 0),
            "codes": torch.randn(priors, 4, generator=generator),
        }


def found_on(scores: torch.Tensor, codes: torch.Tensor) -> Detections:
    return postprocess(scores, codes, grid_priors(4), PostprocessConfig(score_threshold=0.2, detections=20))


def known_images() -> Annotations:
    """Objects near every third thing that is found."""
    rng, boxes, labels, owners = np.random.default_rng(3), [], [], []
    for index in range(IMAGES):
        output = Outputs()[Draw(index, 0, index)]
        ((found, _, classes),) = found_on(output["scores"][None], output["codes"][None]).images()
        boxes += [200 * box.numpy() + rng.normal(0, 3, 4) for box in found[::3]]
        labels += classes[::3].tolist()
        owners += [index] * len(classes[::3])
    return truth(IMAGES, boxes, labels, owners)


def evaluate(ranks: Ranks) -> list[str]:
    """Figures and detections of 101 images, as every rank has them."""
    known, parts = known_images(), []
    for batch in EvalLoader(Outputs(), IMAGES, 8, WorkerSettings(), ranks):
        found = found_on(batch.data["scores"], batch.data["codes"])
        parts.append(rows(batch.data["index"], found, torch.from_numpy(known.sizes[batch.indices])))
    gathered = gather(parts, IMAGES, ranks)
    return [json.dumps(coco_evaluate(gathered, known).metrics), json.dumps(as_coco(gathered, known))]


def test_any_number_of_ranks_finds_the_same():
    metrics, detections = evaluate(ALONE)
    assert len(json.loads(detections)) > 500 and 0.1 < json.loads(metrics)["AP50"] < 0.9
    for world_size in (2, 3):
        for found in run_ranks(world_size, evaluate):
            assert found == [metrics, detections]


def test_boxes_become_pixels_of_their_own_image_and_places_are_kept():
    detections = Detections(
        boxes=torch.tensor([[[0.0, 0.5, 0.5, 1.0], [0.0, 0.0, 1.0, 1.0]], [[0.1, 0.2, 0.3, 0.4], [0, 0, 0, 0]]]),
        scores=torch.tensor([[0.75, 0.5], [0.25, 0.0]]),
        labels=torch.tensor([[2, 0], [1, 0]]),
        counts=torch.tensor([2, 1]),
    )
    sizes = torch.tensor([[200, 300], [100, 50]])
    table = rows(torch.tensor([2, 0]), detections, sizes)
    assert table.shape == (3, WIDTH)
    found = gather([table], 3, ALONE)
    assert found.starts.tolist() == [0, 1, 1, 3]
    np.testing.assert_allclose(found.boxes, [[10, 10, 30, 20], [0, 150, 100, 300], [0, 0, 200, 300]], rtol=1e-6)
    assert (found.labels.tolist(), found.scores.tolist()) == ([1, 2, 0], [0.25, 0.75, 0.5])
    with pytest.raises(AssertionError, match="evaluated twice"):
        gather([table, table], 3, ALONE)


def test_nothing_found_anywhere_is_a_result():
    found = gather([], 4, ALONE)
    assert found.starts.tolist() == [0] * 5 and found.boxes.shape == (0, 4)
    assert coco_evaluate(found, truth(4, [[0, 0, 9, 9]], [1], [2])).metrics["AP"] == 0
    assert set(METRICS) == set(coco_evaluate(found, truth(4)).metrics)


def test_detections_are_written_under_the_data_sets_own_ids(tmp_path: Path):
    known = truth(3, ids=[90, 7, 55])
    entries = as_coco(predictions(3, [[1, 2, 4, 8]], [1], [0.5], [2]), known)
    assert json.loads(json.dumps(entries)) == [
        {"image_id": 1014, "category_id": 7, "bbox": [1.0, 2.0, 3.0, 6.0], "score": 0.5}
    ]
