"""What follows the network beside torchvision's own SSD, on the same inputs.

- matching and loss: from boxes of objects and the model's output to gradients with respect to that output;
- post-processing: from the model's output to detections, with scores that are above the threshold nearly everywhere
  (as of a model that has just begun) and nearly nowhere;
- the suppression of doubles within it, on the GPU if there is one: of all images by one call, by calls of bounded
  size, and image by image.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_convert, box_iou

from detection.boxes.boxes import corners
from detection.boxes.losses import detection_loss
from detection.boxes.matching import match
from detection.boxes.postprocess import class_scores, postprocess, suppress_each, suppress_together
from detection.boxes.sections import CrossEntropyConfig, MatchingConfig, PostprocessConfig
from engine.config.run import DistributedConfig
from engine.devices.allocator import keep_large_blocks
from engine.distributed.connect import choose_device
from engine.distributed.layout import Layout
from tools.bench.timing import Table, interleaved, timed


@dataclass(frozen=True)
class Size:
    """Amounts of a measurement."""

    batch: int
    priors: int
    classes: int
    rounds: int
    suppressed: int
    """Images of the batch whose doubles are suppressed."""


FULL = Size(batch=16, priors=8732, classes=80, rounds=7, suppressed=256 if torch.cuda.is_available() else 32)
QUICK = Size(batch=2, priors=300, classes=5, rounds=1, suppressed=2)
WAYS: dict[str, Callable[..., Tensor]] = {
    "one call": partial(suppress_together, boxes_a_call=sys.maxsize),
    "bounded calls": suppress_together,
    "each image": suppress_each,
}
"""Of suppression, the same in their result."""
MEAN_OBJECTS = 7
"""Objects of an image; COCO's mean."""
SIDE = 300
"""Pixels of the model's input: torchvision's SSD works in pixels, ours in parts of the image."""


def run(quick: bool = False) -> Table:
    """Runs the benchmark; ``quick``: tiny sizes, one round."""
    size = QUICK if quick else FULL
    keep_large_blocks()  # as training on a CPU does; for both sides alike
    title = f"Behind the network: {size.batch} images, {size.priors} priors, {size.classes} classes"
    table = Table("detection", title, "milliseconds", interleaved(parts(size), size.rounds))
    table.compare_columns("torchvision", "ours", shown="ours")
    return table


def parts(size: Size) -> dict[tuple[str, str], Callable[[], float]]:
    """Returns matching, loss and post-processing of one batch."""
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
    device = choose_device(DistributedConfig(), Layout())
    doubles = candidates(size, rng, device)
    for column, suppress in WAYS.items():
        work[f"suppression, {size.suppressed} images on {device}", column] = timed(partial(kept, suppress, doubles))
    return work


# -- inputs ------------------------------------------------------------------------------------------------------------


def some_priors(size: Size, rng: torch.Generator) -> Tensor:
    """Draws boxes (A, 4), cxcywh, anywhere and of any shape."""
    centers, sides = (torch.rand(size.priors, 2, generator=rng) for _ in range(2))
    return torch.cat([centers, 0.05 + sides / 2], dim=1)


def output(size: Size, rng: torch.Generator, background: float) -> tuple[Tensor, Tensor]:
    """Draws logits whose background is higher by ``background``, and codes; leaves that gradients are computed for."""
    logits = torch.randn(size.batch, size.priors, size.classes + 1, generator=rng)
    logits[..., 0] += background
    return logits.requires_grad_(), torch.randn(size.batch, size.priors, 4, generator=rng).requires_grad_()


def objects(size: Size, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draws boxes (B, M, 4), labels (B, M) and mask (B, M) of images with 1 to about twice the mean of objects."""
    counts = torch.randint(1, 2 * MEAN_OBJECTS, (size.batch,), generator=rng)
    most = int(counts.max())
    sides = 0.05 + 0.5 * torch.rand(size.batch, most, 2, generator=rng)
    corner = (1 - sides) * torch.rand(size.batch, most, 2, generator=rng)
    labels = torch.randint(0, size.classes, (size.batch, most), generator=rng)
    return torch.cat([corner, corner + sides], dim=-1), labels, torch.arange(most) < counts.unsqueeze(1)


def candidates(size: Size, rng: torch.Generator, device: torch.device) -> tuple[Tensor, ...]:
    """Draws boxes (B, N, 4), scores, best first, labels and whether they count, (B, N) each: as many as by default."""
    shape = (size.suppressed, min(PostprocessConfig().candidates, size.priors))
    corner, sides = torch.rand(*shape, 2, generator=rng) * 0.7, 0.05 + torch.rand(*shape, 2, generator=rng) / 4
    boxes, labels = torch.cat([corner, corner + sides], dim=-1), torch.randint(0, size.classes, shape, generator=rng)
    scores = torch.rand(shape, generator=rng).sort(dim=1, descending=True).values
    return tuple(tensor.to(device) for tensor in (boxes, scores, labels, scores > 0.01))


def torchvisions(columns: int) -> SSD:
    """Builds torchvision's SSD, of which only the parts behind the network are used."""
    body = nn.Identity()
    body.out_channels = [1]  # type: ignore[assignment]
    return SSD(body, DefaultBoxGenerator([[2]]), (SIDE, SIDE), columns)


# -- what is measured --------------------------------------------------------------------------------------------------


def their_loss(
    peer: SSD, logits: Tensor, codes: Tensor, priors: Tensor, boxes: Tensor, labels: Tensor, mask: Tensor
) -> dict[str, Tensor]:
    """Computes it as in ``SSD.forward``."""
    anchors = box_convert(priors * SIDE, "cxcywh", "xyxy")
    targets = [{"boxes": b[m] * SIDE, "labels": k[m] + 1} for b, k, m in zip(boxes, labels, mask, strict=True)]
    matched = [peer.proposal_matcher(box_iou(target["boxes"], anchors)) for target in targets]
    head = {"bbox_regression": codes, "cls_logits": logits}
    losses = peer.compute_loss(targets, head, [anchors] * len(targets), matched)
    return differentiated(losses["classification"] + losses["bbox_regression"], logits, codes) | losses


def our_loss(
    logits: Tensor, codes: Tensor, priors: Tensor, boxes: Tensor, labels: Tensor, mask: Tensor
) -> dict[str, Tensor]:
    """Computes our matching and loss of a batch."""
    matches = match(priors, boxes, labels, mask, boxes.new_zeros(len(boxes), 0, 4), MatchingConfig())
    losses = detection_loss(logits, codes, priors, matches, CrossEntropyConfig())
    return differentiated(losses["loss"], logits, codes) | losses


def differentiated(loss: Tensor, logits: Tensor, codes: Tensor) -> dict[str, Tensor]:
    """Returns the gradients with respect to the model's output."""
    logits_gradient, codes_gradient = torch.autograd.grad(loss, (logits, codes))
    return {"logits": logits_gradient, "codes": codes_gradient}


@torch.no_grad()
def their_detections(peer: SSD, logits: Tensor, codes: Tensor, priors: Tensor) -> list[dict[str, Tensor]]:
    """Returns what torchvision makes of a model's output."""
    head = {"bbox_regression": codes, "cls_logits": logits}
    return peer.postprocess_detections(head, [corners(priors) * SIDE] * len(logits), [(SIDE, SIDE)] * len(logits))


@torch.no_grad()
def kept(suppress: Callable[..., Tensor], given: tuple[Tensor, ...]) -> Tensor:
    """Returns which of the candidates are kept, (B, N), on the CPU."""
    return suppress(*given, PostprocessConfig().nms_iou).cpu()


@torch.no_grad()
def our_detections(logits: Tensor, codes: Tensor, priors: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Returns what we make of a model's output."""
    return postprocess(class_scores(logits, sigmoid=False), codes, priors, PostprocessConfig()).images()
