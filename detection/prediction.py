"""Detections on pictures of which nothing is known, from a trained model to files."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.config import DetectionConfig
from detection.inference import Detector, reading
from detection.named_files import DETECTIONS, DRAWINGS, FileReader, find_pictures
from detection.report.confusion import SCORE
from detection.report.drawing import Boxes, draw
from detection.report.predictions import Predictions, gather, rows
from engine.commands.evaluate import require_writable, with_experiment
from engine.commands.experiment import Experiment
from engine.data.loaders import EvalLoader
from engine.data.names import Names
from engine.devices.precision import resolve_precision
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.files import shown, write_atomic
from engine.images.image_io import read_picture, write_picture
from engine.training.evaluation import inference

log = logging.getLogger(__name__)

LONGEST_STEM = 40
"""Characters of a picture's name in that of its drawing: a file's name has at most 255 bytes."""


def run_prediction(
    folder: Path, checkpoint: str, images: Sequence[Path], output: Path, overrides: Sequence[str]
) -> int:
    """Writes what a trained model finds on ``images`` into ``output``; returns the exit code.

    Raises:
        UserError: experiment, checkpoint, settings or paths are not as they should be, or ``output`` holds results.
    """

    def work(experiment: Experiment[DetectionConfig], ranks: Ranks) -> None:
        require_writable(output, ranks, "--output")
        ranks.from_main(partial(require_unused, output))
        paths = ranks.from_main(lambda: Names(map(os.fspath, find_pictures(images))))
        predict(experiment, paths, output, ranks)

    return with_experiment(work, folder, checkpoint, DetectionConfig, overrides)


def require_unused(output: Path) -> str:
    """Raises a :class:`UserError` if ``output`` holds what a prediction writes: old and new would be mixed."""
    for path in (output / DETECTIONS, output / DRAWINGS):
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise UserError(f"--output: {path} is there already; remove it or name another folder")
    return ""


def predict(experiment: Experiment[DetectionConfig], paths: Names, output: Path, ranks: Ranks) -> None:
    """Every rank looks at its share of the pictures and draws as many; rank 0 writes the file of all detections.

    The file comes first: by it, drawings are known for what they are, those of a prediction that was stopped too.
    A drawn picture is called after its number, which is its id in the file, and the beginning of its name.
    """
    config, metadata = experiment.config, experiment.saved["metadata"]
    detector = Detector(config, metadata["classes"], ranks)
    experiment.load_into(detector.model)
    reader = FileReader(paths, detector.transform)
    settings, sizes = reading(config.data, ranks), np.zeros((len(paths), 2), np.int64)
    parts: list[Tensor] = []
    faults: dict[int, str] = {}
    with inference(detector.model, resolve_precision(config.training.precision, ranks.device)):
        for batch in EvalLoader(reader, len(reader), config.evaluation.batch_size, settings, ranks):
            data = batch.data
            sizes[batch.indices] = data["size"].numpy()
            faults |= {i: fault for i, fault in zip(batch.indices.tolist(), data["fault"], strict=True) if fault}
            found = rows(data["index"], detector.detect(detector.model, data["image"]), sizes)
            parts.append(found[~torch.isin(found[:, 0].long(), torch.tensor([*faults], dtype=torch.int64))])
    everywhere = [json.loads(text) for text in ranks.gather(json.dumps(faults))]
    faults = {int(i): fault for part in everywhere for i, fault in part.items()}
    if len(faults) == len(paths):
        raise UserError(f"--images: none of the {len(paths)} pictures can be read; the first: {faults[0]}")
    sizes = ranks.sum_(torch.from_numpy(sizes).to(ranks.device)).cpu().numpy()
    predictions = gather(parts, len(paths), ranks)
    good = [index for index in range(len(paths)) if index not in faults]
    if ranks.is_main:
        for fault in faults.values():
            log.warning("left out: %s", fault)
        output.mkdir(parents=True, exist_ok=True)
        write_atomic(output / DETECTIONS, json.dumps(document(predictions, paths, sizes, good, metadata)) + "\n")
    for index in good[ranks.rank :: ranks.world_size]:
        ranks.heartbeat.tick()
        path = Path(paths[index])
        picture = drawn(path, predictions, index, metadata)
        write_picture(output / DRAWINGS / f"{index + 1:05d}_{path.stem[:LONGEST_STEM]}.png", picture)
    if ranks.is_main:
        log.info("%d pictures, %d detections: %s", len(good), len(predictions.scores), shown(output))


def drawn(path: Path, found: Predictions, index: int, metadata: dict[str, Any]) -> NDArray[np.uint8]:
    """The picture with its better detections, (height, width, 3)."""
    picture, own = np.array(read_picture(path)), found.of(index)
    scale = np.array([picture.shape[1], picture.shape[0]] * 2)
    boxes = torch.from_numpy(found.boxes[own] / scale).float()
    detections = Boxes(boxes, torch.from_numpy(found.labels[own]), torch.from_numpy(found.scores[own]))
    return draw(picture, detections.above(SCORE), metadata["classes"])


def document(
    found: Predictions, paths: Sequence[str], sizes: NDArray[np.int64], good: Sequence[int], metadata: dict[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """COCO's format with scores: images numbered from 1 in the order given, annotations under the data set's ids."""
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    bbox = np.concatenate([found.boxes[:, :2], sides], axis=1).tolist()
    columns = (found.pictures.tolist(), found.labels.tolist(), bbox, sides.prod(axis=1).tolist(), found.scores.tolist())
    return {
        "images": [
            {"id": i + 1, "file_name": paths[i], "width": int(sizes[i, 0]), "height": int(sizes[i, 1])} for i in good
        ],
        "annotations": [
            {
                "id": number,
                "image_id": picture + 1,
                "category_id": metadata["category_ids"][label],
                "bbox": box,
                "area": area,
                "score": score,
                "iscrowd": 0,
            }
            for number, (picture, label, box, area, score) in enumerate(zip(*columns, strict=True), start=1)
        ],
        "categories": [
            {"id": i, "name": name} for i, name in zip(metadata["category_ids"], metadata["classes"], strict=True)
        ],
    }
