"""What of a diffusion can be known before it starts: its metrics, and what is wrong with its data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from diffusion.config import DiffusionConfig
from diffusion.data.sections import ImagesSource
from diffusion.metrics.names import JUDGE, measured_in_training
from engine.task.metrics import Metrics
from engine.task.preflight import Checked, refusals

if TYPE_CHECKING:
    from engine.task.packing import Packable


def metrics_of(config: DiffusionConfig) -> Metrics:
    """Returns what a run measures."""
    judged = config.evaluation.judge is not None and config.tells_class
    return measured_in_training(sampled=bool(config.evaluation.samples), judged=judged)


def check_inputs(config: DiffusionConfig) -> None:
    """Raises a UserError if data or judge are not there."""
    from diffusion.data.open import unlabelled_folder
    from diffusion.metrics.judge import require_judge
    from engine.datasets.preflight import look_for_data

    if config.evaluation.samples and config.evaluation.judge is not None:
        require_judge(config.evaluation.judge, JUDGE)
    if isinstance(config.data, ImagesSource):
        unlabelled_folder(config.data, "val")
    else:
        look_for_data(config.data)


def look(config: DiffusionConfig) -> Iterator[Checked]:
    """Yields what is found in the data, and logs what training would warn of. What is not there at all is raised as a
    UserError.
    """
    import torch

    from diffusion.data.open import SPLITS, open_split
    from diffusion.process.build import build_process
    from diffusion.validation import check_reference, open_space
    from engine.data.batch_plan import BatchLayout
    from engine.datasets.labelled import odd_labels
    from engine.datasets.preflight import counts_of, faults_of, warn_of_likenesses, warn_of_test, with_test
    from engine.datasets.sampling import build_order
    from engine.distributed.layout import Layout
    from engine.distributed.ranks import Ranks

    data, batch = config.data, config.training.global_batch_size
    opened = {split: open_split(data, split) for split in SPLITS}
    train, val = (opened[split] for split in SPLITS)
    warn_of_likenesses(train, val)
    opened, untested = with_test(opened, partial(open_split, data))
    warn_of_test(opened)
    classes = f" of {len(train.classes)} classes" if config.tells_class else ""
    told = train.classes if config.tells_class else []
    samples = build_order(data, train, config.experiment.seed).num_samples
    yield Checked(
        [*(f"{split}: {len(images)} images{classes}" for split, images in opened.items()), *untested],
        odd_labels(train, val) if told else [],
        [
            *faults_of(train, val, config.data.max_unreadable).splitlines(),
            *refusals(
                lambda: build_process(config.diffusion, data.size),
                lambda: BatchLayout(samples, batch, drop_last=data.drop_last),
                lambda: check_reference(config, val),
                lambda: config.evaluation.samples and open_space(config, told, Ranks(Layout(), torch.device("cpu"))),
            ),
        ],
        counts_of(opened) if told else {},
        opened,
    )


def packable(config: DiffusionConfig) -> Mapping[str, Packable]:
    """Returns the splits of a run, to be packed."""
    from diffusion.data.open import open_split
    from engine.task.packing import packable

    return packable(lambda split: open_split(config.data, split))
