"""What of a classification can be known before it starts: its metrics, and what is wrong with its data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from classification.config import ClassificationConfig
from classification.metrics.names import measured
from engine.task.metrics import Metrics
from engine.task.preflight import Checked, refusals

if TYPE_CHECKING:
    from engine.task.packing import Packable


def metrics_of(config: ClassificationConfig) -> Metrics:
    """Returns what a run measures."""
    return measured(config.data.multi_label, config.evaluation.thresholds)


def check_inputs(config: ClassificationConfig) -> None:
    """Raises a UserError if data or weights are not there."""
    from engine.datasets.preflight import look_for_data

    look_for_data(config.data)
    if config.finetune.weights == "timm" and config.model.timm_name is not None:
        from engine.model.timm_weights import require_cached

        require_cached(config.model.timm_name)


def look(config: ClassificationConfig) -> Iterator[Checked]:
    """Yields what is found in the data, and logs what training would warn of. What is not there at all is raised as a
    UserError.
    """
    from classification.metrics.measure import check_top5
    from engine.data.batch_plan import BatchLayout
    from engine.datasets.dataset import open_images
    from engine.datasets.labelled import odd_labels
    from engine.datasets.preflight import counts_of, faults_of, warn_of_likenesses, warn_of_test, with_test
    from engine.datasets.sampling import build_order

    opened = {split: open_images(config.data, split) for split in ("train", "val")}
    train = opened["train"]
    warn_of_likenesses(train, opened["val"])
    opened, untested = with_test(opened, partial(open_images, config.data))
    warn_of_test(opened)
    samples = build_order(config.data, train, config.experiment.seed).num_samples
    batch = config.training.global_batch_size
    yield Checked(
        [
            *(f"{split}: {len(images)} images of {len(images.classes)} classes" for split, images in opened.items()),
            *untested,
        ],
        [*config.augmentation.questions(), *odd_labels(train, opened["val"])],
        [
            *faults_of(train, opened["val"], config.data.max_unreadable).splitlines(),
            *refusals(
                lambda: check_top5(config.evaluation.metric, len(train.classes)),
                lambda: BatchLayout(samples, batch, drop_last=config.data.drop_last),
            ),
        ],
        counts_of(opened),
        opened,
    )


def packable(config: ClassificationConfig) -> Mapping[str, Packable]:
    """Returns the splits of a run, to be packed."""
    from engine.datasets.dataset import open_images
    from engine.task.packing import packable

    return packable(lambda split: open_images(config.data, split))
