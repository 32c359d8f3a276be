from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from classification.augmentation.mixing import apply_mixing, plan_mixing
from classification.augmentation.sections import AugmentationConfig
from classification.augmentation.transforms import TrainTransform
from engine.data.batch_plan import BatchLayout, NaturalOrder
from engine.data.loaders import MicroBatchSampler, TrainLoader
from engine.data.names import Names
from engine.data.workers import WorkerSettings
from engine.datasets import dataset as datasets
from engine.datasets.dataset import ImageReader, open_images, prepare_on_all
from engine.datasets.sections import CsvData, FolderData
from engine.distributed.ranks import Ranks
from engine.images.preprocessing import Preprocessing
from tests.distributed import run_ranks

GLOBAL_BATCH, SEED, STEPS = 8, 11, 7
AUGMENTATION = AugmentationConfig.model_validate(
    {
        "randaugment": "rand-m9-mstd0.5-inc1",
        "random_erasing": {"probability": 0.5},
        "color_jitter": {},
        "mixup": 0.8,
        "cutmix": 1.0,
        "mixing_mode": "pair",
    }
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for k in range(27):
        path = folder / "train" / f"class_{k % 3}" / f"{k}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        small.resize((80 + k, 60), Image.Resampling.BICUBIC).save(path)
    return folder


def read(
    root, *, ranks=1, accumulation=1, workers=0, threads=0, start_step=0, decode="fast"
) -> dict[tuple[int, int], tuple]:
    """For each step and position that counts: index, label, and the bytes of the augmented and of the mixed image."""
    images = open_images(FolderData(source="folder", root=root), "train")
    size = Preprocessing(
        32,
        32,
        resize="crop",
        crop_pct=1.0,
        interpolation="bicubic",
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        decode=decode,
    )
    reader = ImageReader(images, TrainTransform(size, AUGMENTATION), SEED)
    layout = BatchLayout(len(images), GLOBAL_BATCH, accumulation, ranks, drop_last=False)
    found = {}
    for rank in range(ranks):
        sampler = MicroBatchSampler(NaturalOrder(len(images), SEED), layout, rank, start_step, STEPS)
        for batch in TrainLoader(reader, sampler, WorkerSettings(workers, read_threads=threads)):
            slot, data = batch.slot, batch.data
            assert data["image"].dtype == torch.uint8
            plan = plan_mixing(AUGMENTATION, SEED, slot.epoch, slot.step_in_epoch, slot.positions, 32, 32)
            mixed, targets = apply_mixing(data["image"].float(), data["label"], 3, plan)
            assert torch.allclose(targets.sum(1), torch.ones(len(targets)))
            for k, position in enumerate(slot.positions[: slot.num_samples]):
                parts = (data["image"][k], mixed[k], targets[k])
                row = int(data["index"][k]), int(data["label"][k]), *(part.numpy().tobytes() for part in parts)
                assert found.setdefault((slot.step, position), row) is row, "each position once"
    return found


@pytest.fixture(scope="module")
def reference(root):
    return read(root)


def test_epochs_take_every_image_once_and_augment_anew(reference):
    epochs = [[row for (step, _), row in reference.items() if step // 4 == epoch] for epoch in (0, 1)]
    assert sorted(row[0] for row in epochs[0]) == list(range(27))
    seen_again = {row[0]: row[2] for row in epochs[0]}
    assert sum(seen_again[row[0]] != row[2] for row in epochs[1]) == len(epochs[1]) == 24
    assert all(row[1] == row[0] // 9 for row in reference.values())


@pytest.mark.parametrize(("ranks", "accumulation"), [(1, 2), (1, 4), (2, 1), (2, 2), (4, 1)])
def test_ranks_and_accumulation_change_no_byte(root, reference, ranks, accumulation):
    assert read(root, ranks=ranks, accumulation=accumulation) == reference


@pytest.mark.parametrize(("workers", "threads"), [(1, 0), (3, 0), (2, 4), (0, 4)])
def test_workers_and_threads_that_read_ahead_change_no_byte(root, reference, workers, threads):
    assert read(root, workers=workers, threads=threads) == reference


def test_exact_pixels_are_others_of_the_same_draws(root, reference):
    exact = read(root, decode="exact")
    assert exact.keys() == reference.keys() and exact != reference
    assert all(row[:2] == reference[key][:2] for key, row in exact.items())


def test_resuming_in_the_middle_of_an_epoch_changes_no_byte(root, reference):
    resumed = read(root, start_step=5, ranks=2)
    assert resumed == {key: row for key, row in reference.items() if key[0] >= 5}
    assert len(resumed) == 16


def test_memory_holds_no_object_per_image(root):
    """Worker processes would copy each of them by counting references to it."""
    names = [f"{path.relative_to(root)},{path.parent.name}" for path in root.rglob("*.jpg")]
    (root / "table.csv").write_text("\n".join(["file,kind", *names]))
    table = CsvData(source="csv", root=root, csv=root / "table.csv", label_columns=["kind"], val_fraction=0.2)
    for data in (FolderData(source="folder", root=root), table):
        images = open_images(data, "train")
        containers = [value for value in vars(images).values() if isinstance(value, list | tuple | dict | set)]
        assert containers == [images.classes]
        assert isinstance(images.labels, np.ndarray) and isinstance(images.names, Names)
        assert all(isinstance(value, np.ndarray) for value in vars(images.names).values())


def prepared(ranks: Ranks) -> list[int]:
    """How often this rank fetches data that is missing, on a node with rank 0 and on one of its own."""
    calls: list[int] = []
    datasets.prepare_data = lambda data: calls.append(1)
    counts = []
    for local_rank in (ranks.rank, 0):
        calls.clear()
        prepare_on_all(None, replace(ranks, layout=replace(ranks.layout, local_rank=local_rank)))
        counts.append(len(calls))
    return counts


def test_one_rank_of_each_node_fetches_what_is_missing():
    assert run_ranks(2, prepared) == [[1, 1], [0, 1]]
