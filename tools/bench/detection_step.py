"""Whole training steps of a detector beside torchvision's SSD of the same backbone, head, priors and inputs.

Ours is what ``python -m detection.train`` runs: the trainer with the shipped recipe on blood cells, channels last. Of
torchvision's there is one model as it comes and one in channels last. Both start with the inputs on the device, in the
form that they are given: a batch of 8-bit images with padded boxes here, lists of images and of targets there.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD

from detection.config import DetectionConfig
from detection.model.backbone import build_backbone
from detection.model.backbone_base import Backbone
from detection.model.ssd import SSD as Detector
from detection.spec import SPEC
from engine.config.load import load_config
from engine.data.device_prefetch import DeviceBatches
from engine.data.loaders import MicroBatch
from engine.images.preprocessing import resolve_preprocessing
from engine.training.optimizer import build_optimizer
from engine.training.trainer import Trainer
from tools.bench.step import build, by_trainer
from tools.bench.timing import Table, image_rate, interleaved

RECIPE = Path(__file__).resolve().parents[2] / "configs" / "detection" / "ssd_lite0_bccd.yaml"
PLAIN, CHANNELS_LAST, OURS = "torchvision", "torchvision, channels last", "ours"
CLASSES = ["circle", "square", "triangle"]
"""As many as there are kinds of blood cells: shapes are drawn in their place, so that no data set is needed."""


@dataclass(frozen=True)
class Case:
    """A detector and its batch."""

    backbone: str
    batch: int
    side: int
    precision: str

    @property
    def row(self) -> str:
        return f"{self.backbone.removeprefix('timm/')} at {self.side}, batch {self.batch}, {self.precision}"


LITE0, RESNET50 = "timm/tf_efficientnet_lite0", "timm/resnet50"
FULL = [Case(LITE0, 16, 320, "fp32"), Case(LITE0, 16, 320, "bf16"), Case(RESNET50, 4, 320, "bf16")]
QUICK = [Case(LITE0, 2, 64, "fp32")]


def run(quick: bool = False) -> Table:
    """Runs the benchmark, with memory kept for both sides alike; ``quick``: one case of tiny images, one round."""
    work: dict[tuple[str, str], Callable[[], float]] = {}
    for case in QUICK if quick else FULL:
        config = configured(case)
        trainer = build(SPEC, config)
        batch = trainer.batches().next()
        work[case.row, PLAIN] = theirs(config, trainer, batch, torch.contiguous_format)
        work[case.row, CHANNELS_LAST] = theirs(config, trainer, batch, torch.channels_last)
        work[case.row, OURS] = by_trainer(trainer, 1, DeviceBatches(itertools.repeat(batch), trainer.ranks.device))
    table = Table("detection_step", "Training an SSD", "images/s", interleaved(work, 1 if quick else 5))
    for row, cells in table.medians().items():
        table.ratios[f"{row}: ours / peer"] = {peer: cells[OURS] / cells[peer] for peer in (PLAIN, CHANNELS_LAST)}
    return table


def configured(case: Case) -> DetectionConfig:
    """Returns the recipe's configuration, with drawn shapes as data and without trained weights."""
    overrides = [
        f"data={{source: shapes, classes: [{', '.join(CLASSES)}], train_images: {case.batch}, val_images: 1, "
        f"canvas_size: [{case.side}, {case.side}], image_size: {case.side}, workers: 0}}",
        f"detection.backbone={case.backbone}",
        "detection.neck=none",  # which torchvision's SSD does not have
        f"training.global_batch_size={case.batch}",
        f"training.precision={case.precision}",
        "training.steps=1000",
        "finetune.weights=null",
    ]
    return load_config(DetectionConfig, RECIPE, overrides)


def theirs(
    config: DetectionConfig, trainer: Trainer, batch: MicroBatch, layout: torch.memory_format
) -> Callable[[], float]:
    """Measures images a second of the least of loops around torchvision's model, with the trainer's own optimizer."""
    model = peer(config, trainer).to(memory_format=layout)
    optimizer = build_optimizer(model, config.optimizer, config.finetune)
    images, targets = as_lists(batch.data)

    def step() -> None:
        with trainer.learner.precision.autocast():
            loss = torch.stack([*model(images, targets).values()]).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return image_rate(step, len(images), trainer.ranks.device)


class SixMaps(nn.Module):
    """Our backbone as torchvision expects one."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.maps = backbone
        self.out_channels = [*backbone.channels]

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict((str(number), y) for number, y in enumerate(self.maps(x)))


def peer(config: DetectionConfig, trainer: Trainer) -> SSD:
    """Builds torchvision's SSD, in training, with copies of the weights of the trainer's model, on its device."""
    model = trainer.task.model
    assert isinstance(model, Detector)
    priors, ready = config.detection.priors, resolve_preprocessing(config.data, config.detection.timm_name)
    ratios: Any = [[*ratios] for ratios in priors.ratios]
    boxes = DefaultBoxGenerator(ratios, scales=[*priors.scales, priors.scale_beyond], clip=priors.clip)
    backbone = SixMaps(build_backbone(config.detection, ready.size))  # made anew: the trainer may replace layers
    backbone.maps.load_state_dict(model.backbone.state_dict())
    found = SSD(backbone, boxes, ready.size, len(CLASSES) + 1, [*ready.mean], [*ready.std])
    found.head.classification_head.module_list.load_state_dict(model.head.classes.state_dict())
    found.head.regression_head.module_list.load_state_dict(model.head.boxes.state_dict())
    return found.to(trainer.ranks.device).train()


def as_lists(data: dict[str, Tensor]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Returns a batch in torchvision's form: images in [0, 1], and boxes in pixels with labels from 1 on."""
    images = [*(data["image"].float() / 255)]
    height, width = data["image"].shape[2:]
    scale = torch.tensor([width, height] * 2, device=data["boxes"].device)
    rows = zip(data["boxes"], data["labels"], data["mask"], strict=True)
    return images, [{"boxes": b[there] * scale, "labels": k[there] + 1} for b, k, there in rows]
