"""Parts of detection beside torchvision's own SSD and pycocotools, on the same inputs.

- matching and loss: from boxes of objects and the model's output to gradients with respect to that output;
- post-processing: from the model's output to detections, with scores that are above the threshold nearly everywhere
  (as of a model that has just begun) and nearly nowhere;
- the COCO evaluation, up to the twelve figures, which are compared.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_convert, box_iou

from detection.annotations import Annotations, in_order
from detection.boxes import corners
from detection.loss_config import LossConfig, MatchingConfig, PostprocessConfig
from detection.losses import detection_loss
from detection.matching import match
from detection.metrics import coco_evaluate
from detection.postprocess import class_scores, postprocess
from detection.predictions import Predictions, as_coco
from engine.allocator import keep_large_blocks
from engine.seed import generator
from tools.bench.timing import Samples, Table, interleaved


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    batch: int
    priors: int
    classes: int
    pictures: int
    """Of the COCO evaluation."""
    detections: int
    """Of the COCO evaluation, all pictures together."""
    rounds: int
    evaluations: int
    """Rounds of the COCO evaluation, which takes long."""


FULL = Size(batch=16, priors=8732, classes=80, pictures=2000, detections=200_000, rounds=7, evaluations=2)
QUICK = Size(batch=2, priors=300, classes=5, pictures=20, detections=500, rounds=1, evaluations=1)
MEAN_OBJECTS = 7
"""Objects of a picture; COCO's mean."""
SIDE = 300
"""Pixels of the model's input: torchvision's SSD works in pixels, ours in parts of the picture."""


def run(quick: bool = False) -> Table:
    """Measures; ``quick`` is for seeing that it works: tiny sizes, one round."""
    size = QUICK if quick else FULL
    keep_large_blocks()  # as training on a CPU does; for both sides alike
    samples: Samples = {}
    samples |= interleaved(parts(size), size.rounds)
    samples |= interleaved(evaluations(size), size.evaluations)
    table = Table("detection", "Parts of detection", "milliseconds", samples)
    for row, cells in table.medians().items():
        peer = next(name for name in cells if name != "ours")
        table.ratios[f"{row}: {peer} / ours"] = {"ours": cells[peer] / cells["ours"]}
    return table


def parts(size: Size) -> dict[tuple[str, str], Callable[[], float]]:
    """Matching, loss and post-processing of one batch."""
    rng = torch.Generator().manual_seed(0)
    priors = some_priors(size, rng)
    peer = torchvisions(size.classes + 1)
    work: dict[tuple[str, str], Callable[[], float]] = {}
    given = (*output(size, rng, background=0.0), priors, *objects(size, rng))
    work["matching and loss", "torchvision"] = timed(partial(their_loss, peer, *given))
    work["matching and loss", "ours"] = timed(partial(our_loss, *given))
    for name, background in (("dense", 0.0), ("sparse", 9.0)):
        row = f"post-processing, {name} scores"
        logits, codes = (tensor.detach() for tensor in output(size, rng, background))
        work[row, "torchvision"] = timed(partial(their_detections, peer, logits, codes, priors))
        work[row, "ours"] = timed(partial(our_detections, logits, codes, priors))
    return work


def timed(work: Callable[[], Any]) -> Callable[[], float]:
    """Measures one call of ``work`` in milliseconds."""

    def measure() -> float:
        start = perf_counter()
        work()
        return (perf_counter() - start) * 1000

    return measure


# -- inputs ------------------------------------------------------------------------------------------------------------


def some_priors(size: Size, rng: torch.Generator) -> Tensor:
    """Boxes (A, 4), cxcywh, anywhere and of any shape."""
    return torch.cat(
        [torch.rand(size.priors, 2, generator=rng), 0.05 + torch.rand(size.priors, 2, generator=rng) / 2], 1
    )


def output(size: Size, rng: torch.Generator, background: float) -> tuple[Tensor, Tensor]:
    """Logits whose background is higher by ``background``, and codes; leaves that gradients are computed for."""
    logits = torch.randn(size.batch, size.priors, size.classes + 1, generator=rng)
    logits[..., 0] += background
    return logits.requires_grad_(), torch.randn(size.batch, size.priors, 4, generator=rng).requires_grad_()


def objects(size: Size, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (B, M, 4), labels (B, M) and mask (B, M) of pictures with 1 to about twice the mean number of objects."""
    counts = torch.randint(1, 2 * MEAN_OBJECTS, (size.batch,), generator=rng)
    most = int(counts.max())
    sides = 0.05 + 0.5 * torch.rand(size.batch, most, 2, generator=rng)
    corner = (1 - sides) * torch.rand(size.batch, most, 2, generator=rng)
    labels = torch.randint(0, size.classes, (size.batch, most), generator=rng)
    return torch.cat([corner, corner + sides], dim=-1), labels, torch.arange(most) < counts.unsqueeze(1)


def torchvisions(columns: int) -> SSD:
    """torchvision's SSD, of which only the parts behind the network are used."""
    body = nn.Identity()
    body.out_channels = [1]  # type: ignore[assignment]
    return SSD(body, DefaultBoxGenerator([[2]]), (SIDE, SIDE), columns)


# -- what is measured --------------------------------------------------------------------------------------------------


def their_loss(
    peer: SSD, logits: Tensor, codes: Tensor, priors: Tensor, boxes: Tensor, labels: Tensor, mask: Tensor
) -> dict[str, Tensor]:
    """As in ``SSD.forward``."""
    anchors = box_convert(priors * SIDE, "cxcywh", "xyxy")
    targets = [{"boxes": b[m] * SIDE, "labels": k[m] + 1} for b, k, m in zip(boxes, labels, mask, strict=True)]
    matched = [peer.proposal_matcher(box_iou(target["boxes"], anchors)) for target in targets]
    head = {"bbox_regression": codes, "cls_logits": logits}
    losses = peer.compute_loss(targets, head, [anchors] * len(targets), matched)
    return differentiated(losses["classification"] + losses["bbox_regression"], logits, codes) | losses


def our_loss(
    logits: Tensor, codes: Tensor, priors: Tensor, boxes: Tensor, labels: Tensor, mask: Tensor
) -> dict[str, Tensor]:
    matches = match(priors, boxes, labels, mask, boxes.new_zeros(len(boxes), 0, 4), MatchingConfig())
    losses = detection_loss(logits, codes, priors, matches, LossConfig())
    return differentiated(losses["loss"], logits, codes) | losses


def differentiated(loss: Tensor, logits: Tensor, codes: Tensor) -> dict[str, Tensor]:
    """Gradients with respect to the model's output."""
    logits_gradient, codes_gradient = torch.autograd.grad(loss, (logits, codes))
    return {"logits": logits_gradient, "codes": codes_gradient}


@torch.no_grad()
def their_detections(peer: SSD, logits: Tensor, codes: Tensor, priors: Tensor) -> list[dict[str, Tensor]]:
    head = {"bbox_regression": codes, "cls_logits": logits}
    return peer.postprocess_detections(head, [corners(priors) * SIDE] * len(logits), [(SIDE, SIDE)] * len(logits))


@torch.no_grad()
def our_detections(logits: Tensor, codes: Tensor, priors: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    return postprocess(class_scores(logits, sigmoid=False), codes, priors, PostprocessConfig()).pictures()


# -- COCO evaluation ---------------------------------------------------------------------------------------------------


def evaluations(size: Size) -> dict[tuple[str, str], Callable[[], float]]:
    """The evaluation of the same detections; pycocotools' begins with its own lists of them already made."""
    known, found = results(size)
    truth, entries = truth_document(known), as_coco(found, known)
    figures: dict[str, list[float]] = {}

    def ours() -> None:
        figures["ours"] = list(coco_evaluate(found, known).metrics.values())
        if "pycocotools" in figures:
            theirs = [np.nan if value == -1 else value for value in figures["pycocotools"]]
            np.testing.assert_allclose(figures["ours"], theirs, rtol=0, atol=1e-6)

    def theirs() -> None:
        figures["pycocotools"] = list(pycocotools_figures(truth, entries))

    row = f"COCO evaluation, {size.pictures} pictures, {size.detections} boxes"
    return {(row, "pycocotools"): timed(theirs), (row, "ours"): timed(ours)}


def results(size: Size) -> tuple[Annotations, Predictions]:
    """Random objects, and detections of which most lie near one."""
    rng = generator(0, "bench detection")
    count = MEAN_OBJECTS * size.pictures
    corner, sides = rng.uniform(0, 400, (count, 2)), rng.uniform(8, 200, (count, 2))
    boxes, labels = np.concatenate([corner, corner + sides], axis=1), rng.integers(size.classes, size=count)
    order, starts = in_order(rng.integers(size.pictures, size=count), size.pictures)
    known = Annotations(
        classes=[f"class {number}" for number in range(size.classes)],
        category_ids=list(range(1, size.classes + 1)),
        picture_ids=np.arange(1, size.pictures + 1),
        sizes=np.full((size.pictures, 2), 640),
        starts=starts,
        boxes=boxes[order],
        labels=labels[order],
        crowd=rng.random(count) < 0.01,
        areas=sides.prod(axis=1)[order],
    )
    owners = np.repeat(np.arange(size.pictures), np.diff(starts))
    near = np.sort(rng.integers(count, size=size.detections))
    moved = known.boxes[near] + rng.normal(0, 12, (size.detections, 4))
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 2)
    scores = rng.random(size.detections)
    order = np.lexsort((-scores, owners[near]))
    right = rng.random(size.detections) < 0.5
    guessed = np.where(right, known.labels[near], rng.integers(size.classes, size=size.detections))
    starts = np.searchsorted(owners[near], np.arange(size.pictures + 1))
    return known, Predictions(starts, guessed[order], scores[order], moved[order])


def truth_document(known: Annotations) -> dict[str, list[dict[str, Any]]]:
    """The objects as COCO's JSON has them."""
    owners = np.repeat(known.picture_ids, np.diff(known.starts)).tolist()
    bbox = np.concatenate([known.boxes[:, :2], known.boxes[:, 2:] - known.boxes[:, :2]], axis=1).tolist()
    columns = (owners, known.labels.tolist(), bbox, known.areas.tolist(), known.crowd.tolist())
    return {
        "images": [{"id": number} for number in known.picture_ids.tolist()],
        "categories": [{"id": i, "name": n} for i, n in zip(known.category_ids, known.classes, strict=True)],
        "annotations": [
            {
                "id": place,
                "image_id": owner,
                "category_id": known.category_ids[label],
                "bbox": box,
                "area": area,
                "iscrowd": int(crowd),
            }
            for place, (owner, label, box, area, crowd) in enumerate(zip(*columns, strict=True), start=1)
        ],
    }


def pycocotools_figures(truth: dict[str, list[dict[str, Any]]], entries: list[dict[str, Any]]) -> np.ndarray:
    """The twelve figures as COCO's own code computes them; -1 where there is nothing to find."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"info": {}, **truth}
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes([dict(entry) for entry in entries]), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats
