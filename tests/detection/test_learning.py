"""All parts together: outputs that follow the loss's gradient become detections that COCO's figures call perfect."""

from __future__ import annotations

import pytest
import torch

from detection.augmentation.sections import AugmentationConfig
from detection.augmentation.transforms import TrainReader
from detection.boxes.losses import detection_loss
from detection.boxes.matching import match
from detection.boxes.postprocess import class_scores, postprocess
from detection.boxes.sections import LossConfig, MatchingConfig, PostprocessConfig
from detection.data.sample import collate
from detection.data.sections import ShapesData
from detection.data.synthetic_shapes import ShapeImages
from detection.report.coco_metrics import coco_evaluate
from detection.report.predictions import gather, rows
from engine.data.batch_plan import Draw
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from tests.detection.scenes import grid_priors
from tests.detection.small import prepared
from tests.sections import section

IMAGES = ShapeImages(
    ShapesData.model_validate(
        {"source": "shapes", "train_images": 8, "canvas_size": (60, 80), "background": "noise", "scale": (0.2, 0.5)}
    ),
    "train",
)
PLAIN = AugmentationConfig(photometric=None, zoom_out=None, iou_crop=None, horizontal_flip=0.0)


@pytest.mark.parametrize(
    ("classification", "boxes"), [("cross_entropy", "smooth_l1"), ("cross_entropy", "ciou"), ("focal", "giou")]
)
def test_following_the_loss_leads_to_perfect_detections(classification, boxes):
    config = section(LossConfig, classification=classification, boxes=boxes)
    reader = TrainReader(IMAGES, prepared((48, 64)), PLAIN, 0)
    batch = collate([reader[Draw(index, 0, index)] for index in range(8)])
    priors = grid_priors(8, (0.15, 0.3, 0.5))
    known = (batch["boxes"], batch["labels"], batch["mask"], batch["ignored"])
    matches = match(priors, *known, MatchingConfig())
    logits = torch.zeros(8, len(priors), 6 + (not config.sigmoid), requires_grad=True)
    codes = torch.zeros(8, len(priors), 4, requires_grad=True)
    optimizer = torch.optim.Adam([logits, codes], lr=0.2)
    losses = []
    for _ in range(150):
        loss = detection_loss(logits, codes, priors, matches, config)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
    with torch.no_grad():
        found = postprocess(class_scores(logits, config.sigmoid), codes, priors, PostprocessConfig(score_threshold=0.3))
    sizes = torch.from_numpy(IMAGES.annotations.sizes)[batch["index"]]
    gathered = gather([rows(batch["index"], found, sizes)], 8, Ranks(Layout(), torch.device("cpu")))
    metrics = coco_evaluate(gathered, IMAGES.annotations).metrics
    assert metrics["AP50"] == 1.0 and metrics["AP"] > 0.95
