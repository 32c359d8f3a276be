"""Samples as files: a request goes on where it was stopped, by any number of ranks."""

from __future__ import annotations

import logging
from argparse import Namespace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffusion.config import DiffusionConfig
from diffusion.generator import telling
from diffusion.inference import DiffusionInference
from diffusion.report.grids import COLUMNS, array_of, grid
from diffusion.samplers.request import Request
from engine.commands.evaluate import with_experiment
from engine.devices.precision import resolve_precision
from engine.distributed.ranks import Ranks
from engine.files import check_writable, remove_leftovers, shown
from engine.images.image_io import write_image
from engine.run_folder.results import begin_results
from engine.task.experiment import Experiment
from engine.task.inference import inference_mode
from engine.task.spec import TaskSpec

log = logging.getLogger(__name__)

SAMPLES = "samples"
"""Folder in a run's results."""
MOST_SHOWN = 400
"""Samples in a grid."""


def run_sampling(spec: TaskSpec, arguments: Namespace) -> int:
    """Samples what the command line asks for; returns the exit code.

    Raises:
        UserError: experiment, checkpoint, settings or classes are not as they should be.
    """

    def work(experiment: Experiment[DiffusionConfig], ranks: Ranks) -> None:
        ranks.from_main(partial(check_writable, experiment.folder.results_for(SAMPLES), "--experiment"))
        inference = DiffusionInference(experiment, ranks)
        request = inference.request(arguments.num_images, arguments.seed, arguments.class_ids)
        folder = ranks.from_main(partial(_begin, experiment, arguments))
        precision = resolve_precision(experiment.config.training.precision, ranks.device)
        with inference_mode(inference.model, precision):
            write_samples(inference, request, folder, ranks)
        ranks.heartbeat.at("gather")
        ranks.barrier()
        if ranks.is_main:
            if arguments.grid:
                _write_grid(request, folder)
            log.info("%d images: %s", request.count, shown(folder))

    return with_experiment(spec, arguments, work)


def _begin(experiment: Experiment[DiffusionConfig], arguments: Namespace) -> Path:
    """Makes the folder of a request, or finds it with what is there; that of another request is moved aside."""
    asked = [f"num_images={arguments.num_images}", f"seed={arguments.seed}"]
    if arguments.class_ids is not None:
        asked.append(f"class_ids={','.join(map(str, arguments.class_ids))}")
    step, file = experiment.saved["run"]["step"], experiment.checkpoint.name
    folder = begin_results(experiment.folder, SAMPLES, file, step, [*experiment.changes, *asked])
    remove_leftovers(folder)
    return folder


def write_samples(inference: DiffusionInference, request: Request, folder: Path, ranks: Ranks) -> None:
    """Samples this rank's share of a request and writes each image into its file, but those that are there."""
    ranks.heartbeat.at("evaluate")
    config = inference.config.diffusion.sampling
    blocks = request.blocks(config.block, ranks.rank, ranks.world_size)
    missing = [block for block in blocks if not all(path.exists() for path in _files(request, block, folder))]
    if len(missing) < len(blocks):
        log.info("%d of this rank's %d blocks of images are there already", len(blocks) - len(missing), len(blocks))
    tick = telling(ranks.heartbeat.tick, len(missing) * config.steps)
    for block in missing:
        images = inference.generator.sample(inference.model, request, block, config, tick)
        for path, image in zip(_files(request, block, folder), images, strict=False):  # the block goes beyond the end
            write_image(path, array_of(image))
            ranks.heartbeat.tick()


def _files(request: Request, block: range, folder: Path) -> list[Path]:
    """Returns the files of those images of a block that are asked for, in their order."""
    asked = [image for image in block if image < request.count]
    kind = "class_{}" if request.classes else "sample"
    return [folder / f"{kind.format(request.label(image))}_{image:04d}.png" for image in asked]


def _write_grid(request: Request, folder: Path) -> None:
    """Draws the images from their files, those of a class below each other where there are few classes."""
    files = _files(request, range(min(request.count, MOST_SHOWN)), folder)
    pixels = [np.array(Image.open(file).convert("RGB")) for file in files]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    columns = len(request.classes) if 1 < len(request.classes) <= 2 * COLUMNS else COLUMNS
    write_image(folder / f"grid_seed_{request.seed}.png", grid(images, columns))
