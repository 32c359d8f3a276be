"""Every format for each kind of model: equal, or refused and why; size, and time beside PyTorch's.

The models are trained for a step, detectors for a few, on drawn images, exported and checked as ``tools.export`` does,
and asked about one image at a time on one thread, in turns with the model that each was made from, as the suite runs it
in float32. What needs packages that are not installed is left out.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from engine.commands.arguments import TrainArguments
from engine.commands.train import run_training
from engine.errors import UserError
from engine.exported.exportable import Differs, Exportable
from engine.process.signals import StopRequest
from engine.task.spec import find_spec
from tools.bench.timing import Samples, Table, interleaved, timed
from tools.export.__main__ import export, opened
from tools.export.formats import FORMATS

Work = dict[tuple[str, str], Callable[[], float]]
LAYOUT = ("training.precision=fp32", "training.channels_last=auto")
"""As the suite runs a model in float32."""


@dataclass(frozen=True)
class Kind:
    """A kind of model."""

    task: str
    config: dict[str, Any]
    """Of its run, but for the data of a classifier, which are drawn."""
    raw: bool = False
    multi_label: bool = False


MIXED = {"channels_last": True, "precision": "bf16", "ema": {"decay": 0.5}}
SHAPES = {"source": "shapes", "classes": ["circle", "square"], "train_images": 64, "val_images": 6}
LEARNT = {"steps": 80, "global_batch_size": 8}
"""After which a detector finds something: what suppression costs depends on how much is found."""
NECK = {"neck": "fpn", "neck_norm": "layer"}
SSD = {"detection": {"backbone": "timm/tf_efficientnet_lite0", **NECK}, "data": {**SHAPES, "image_size": 160}}
MIXED_LONGER = {**MIXED, **LEARNT}
UNET = {"model": {"name": "swin_unet_tiny"}, "data": {"source": "digits", "image_size": 32}}
KINDS = {
    "Swin-T at 224": Kind("classification", {"model": {"name": "swin_tiny"}}),
    "EfficientNet-Lite0 of timm at 224, trained channels last in bf16": Kind(
        "classification", {"model": {"name": "timm/tf_efficientnet_lite0"}, "training": MIXED}
    ),
    "keras/EfficientNetB0 at 224": Kind("classification", {"model": {"name": "keras/EfficientNetB0"}}),
    "Swin-T at 224, several labels": Kind("classification", {"model": {"name": "swin_tiny"}}, multi_label=True),
    "SSD on EfficientNet-Lite0 at 160, trained channels last in bf16": Kind(
        "detection", {**SSD, "training": MIXED_LONGER}
    ),
    "the same, without suppression": Kind("detection", {**SSD, "training": MIXED_LONGER}, raw=True),
    "SSD on Swin-T at 160": Kind(
        "detection", {**SSD, "detection": {"backbone": "swin_tiny", **NECK}, "training": LEARNT}
    ),
    "Swin U-Net of 5 M parameters at 32": Kind("diffusion", UNET),
}
TINY = {"name": "swin", "patch_size": 2, "window_size": 4, "embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2]}
QUICK = {"a small Swin": Kind("classification", {"model": TINY, "data": {"image_size": 16}})}


def run(quick: bool = False) -> Table:
    """Runs the benchmark; ``quick``: a small model, in the formats that need no packages, one round."""
    torch.set_num_threads(1)
    samples: Samples = {}
    sizes: dict[str, float] = {}
    notes: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="bench_export_") as folder:
        for number, (name, kind) in enumerate((QUICK if quick else KINDS).items()):
            experiment, work = trained(kind, Path(folder, str(number))), Work()
            for form, options in FORMATS.items():
                if options.missing or (quick and options.packages):
                    continue
                for int8 in (False, True) if form == "onnx" else (False,):
                    row = f"{name}: {form}{' --int8' * int8}"
                    try:
                        made = export(_options(experiment, form, int8, kind.raw))
                    except (UserError, Differs) as error:
                        notes[row] = f"{'refused' if isinstance(error, UserError) else 'differs'}: {error}"
                        continue
                    notes[row], sizes[row] = made.same, made.size / 1e6
                    work |= _beside(row, experiment, kind, form, made.output)
            samples |= interleaved(work, 1 if quick else 7)
    for row, size in sizes.items():
        samples[row] = {"MB": [size], **samples[row]}
    table = Table("export", "Exports", "milliseconds an image on one thread, and MB", samples, notes=notes)
    table.compare_columns("PyTorch", "export", shown="export")
    return table


def trained(kind: Kind, folder: Path) -> Path:
    """Trains a model for one step; returns the experiment's folder."""
    folder.mkdir()
    config = {
        **kind.config,
        "training": {"steps": 1, "global_batch_size": 2, **kind.config.get("training", {})},
        "experiment": {"root": str(folder / "experiments")},
        "distributed": {"device": "cpu"},
    }
    if kind.task == "classification":
        config["data"] = {"image_size": 224, **drawn(folder / "images", kind.multi_label), **config.get("data", {})}
        config |= {"loss": {"name": "bce"}} if kind.multi_label else {}
    config["data"] = {**config["data"], "workers": 0}
    (folder / "run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    code = run_training(find_spec(kind.task), TrainArguments(folder / "run.yaml", None, False, ()), StopRequest())
    assert code == 0, "it is a configuration that works"
    return folder / "experiments" / "experiment_0001"


def drawn(folder: Path, multi_label: bool) -> dict[str, Any]:
    """Draws twelve images of two classes; returns their section of a configuration."""
    random, lines = np.random.default_rng(0), ["file,labels,split"]
    folder.mkdir()
    for number in range(12):
        coarse = random.integers(0, 256, (7, 7, 3), dtype=np.uint8)
        Image.fromarray(coarse.repeat(32, 0).repeat(32, 1)).save(folder / f"{number}.png")
        labels = ("dark", "light", "dark|light" if multi_label else "dark")[number % 3]
        lines.append(f"{number}.png,{labels},{'train' if number < 6 else 'val'}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    separator = {"label_separator": "|"} if multi_label else {}
    columns = {"path_column": "file", "label_columns": ["labels"], "split_column": "split"}
    return {"source": "csv", "root": str(folder), "csv": str(folder / "labels.csv"), **columns, **separator}


def _options(experiment: Path, form: str, int8: bool, raw: bool) -> argparse.Namespace:
    name = form + "_int8" * int8 + FORMATS[form].ending
    return argparse.Namespace(
        experiment=experiment, format=form, output=experiment / "exported" / name, checkpoint="best", int8=int8,
        raw=raw, image_size=None, licence=None, overrides=[],
    )  # fmt: skip


def _beside(row: str, experiment: Path, kind: Kind, form: str, file: Path) -> Work:
    """Returns what measures an export and the model that it was made from."""
    spec, made_for = find_spec(kind.task), FORMATS[form]
    _, model = opened(spec, experiment, "best", made_for, LAYOUT, kind.raw)
    load = made_for.load(file, model)
    inputs = model.samples(1)
    return {
        (row, "PyTorch"): timed(partial(_asked, model, inputs)),
        (row, "export"): timed(partial(load, [value.numpy() for value in inputs])),
    }


def _asked(model: Exportable, inputs: tuple[torch.Tensor, ...]) -> Any:
    with torch.inference_mode():
        return model.reference(*inputs)
