"""What feeds the devices beside torchvision's references, timm's loader, DALI on the CPU and SPDL.

- one core: CPU milliseconds an image, from the path of a JPEG file to what workers hand on: bytes of the model's size,
  or normalised floats, as in torchvision's references; photographs of 500 x 375 pixels and about 110 KB, and what
  shrinking them once to a short side of 320 makes of them; and what decoding alone takes of it;
- loaders: two workers, CPU seconds of all processes for 1,000 images, and images a second;
- slow storage: the same, where opening a file takes 20 ms.

DALI and SPDL are measured where they are installed.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, partialmethod
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from classification.augmentation.sections import AugmentationConfig
from classification.augmentation.transforms import TrainTransform
from detection.augmentation.sections import AugmentationConfig as DetectionAugmentation
from detection.augmentation.transforms import TrainTransform as DetectionTransform
from detection.data.sample import Sample
from engine.data.batch_plan import Draw
from engine.data.read_ahead import READ_THREADS
from engine.data.workers import WorkerSettings, read_batches
from engine.datasets.dataset import ImageReader
from engine.datasets.labelled import FileImages, LabelledImages
from engine.datasets.sections import ShardData
from engine.datasets.shard_images import ShardImages, open_shards
from engine.images.lazy_image import load_image
from engine.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from engine.task.packing import packable
from tools.bench.timing import Table, interleaved
from tools.pack import pack

SIDE, DETECTION_SIDE, BATCH = 224, 320, 32
OPENING_SECONDS = 0.02
SLOWER = 8
"""How many times fewer images are read where opening takes so long."""
ROUNDS = 3
"""How many times more rounds there are within one process, where one takes a second."""
TICK = 1e-3
"""Seconds; kernels may count in steps, of which a quick run sees none."""
RAND = "rand-m9-mstd0.5-inc1"


@dataclass(frozen=True)
class Size:
    """Amounts of a measurement."""

    files: int
    images: int
    """Images that a loader reads."""
    rounds: int
    workers: int = 2


FULL, QUICK = Size(files=64, images=2048, rounds=5), Size(files=8, images=16, rounds=1, workers=1)


def run(quick: bool = False) -> Table:
    """Runs the benchmark; ``quick``: few images, one round."""
    size = QUICK if quick else FULL
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # workers as a run has them on Linux; this process is none
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_photographs(folder, size.files)
        samples = {
            **interleaved(one_core(folder), ROUNDS * size.rounds),
            **interleaved(loaders(folder, size), size.rounds),
        }
        title = "Reading images: CPU milliseconds an image (one core; two workers together), and images a second"
        table = Table("loader", title, "milliseconds, images/s", samples)
    for column in ("ours, shards", "torchvision", "timm", "DALI", "SPDL"):
        table.compare_columns(column, "ours", shown="ours")
    cells = table.medians()
    if "short side 320" in cells:
        for peer in ("torchvision", "timm"):
            ratio = cells["crop and flip"][peer] / cells["short side 320"]["ours"]
            table.ratios[f"crop and flip: {peer} on originals / ours on a short side of 320"] = {"ours": ratio}
    return table


def write_photographs(folder: Path, count: int) -> None:
    """Writes parts of scikit-learn's two photographs as JPEG files, and the same with a short side of 320."""
    from sklearn.datasets import load_sample_images

    photos, rng = [Image.fromarray(array) for array in load_sample_images().images], np.random.default_rng(0)
    for name in ("large/a", "small/a", "wide/a"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        photo, width = photos[number % 2], int(rng.integers(420, 600))
        left, top = int(rng.integers(640 - width + 1)), int(rng.integers(427 - width * 2 // 3 + 1))
        part = photo.crop((left, top, left + width, top + width * 2 // 3))
        large = part.resize((500, 375), Image.Resampling.LANCZOS)
        large.save(folder / f"large/a/{number}.jpg", quality=96, subsampling=0)
        large.resize((427, 320), Image.Resampling.LANCZOS).save(folder / f"small/a/{number}.jpg", quality=90)
        part.resize((640, 480), Image.Resampling.LANCZOS).save(folder / f"wide/a/{number}.jpg", quality=92)


def cpu_milliseconds(make: Callable[[Path], Any], files: list[Path]) -> Callable[[], float]:
    """Returns a measurement of the CPU milliseconds of one file in this process."""

    def measure() -> float:
        start = time.process_time()
        for file in files:
            make(file)
        return max(time.process_time() - start, TICK) * 1000 / len(files)

    return measure


def ready(side: int, decode: Any = "fast") -> Preprocessing:
    """Returns the same input for all: bilinear, as torchvision's references."""
    return Preprocessing(side, side, "squash", 1.0, "bilinear", IMAGENET_MEAN, IMAGENET_STD, decode=decode)


def torchvisions() -> Callable[[Image.Image], torch.Tensor]:
    """Builds the training preset of torchvision's references, whose workers normalise; others hand on bytes."""
    last = [v2.PILToTensor(), v2.ToDtype(torch.float, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    return v2.Compose([v2.RandomResizedCrop(SIDE), v2.RandomHorizontalFlip(), *last])


def timms(policy: str | None = None) -> Callable[[Image.Image], Any]:
    """Builds timm's training transform, up to the array of bytes that its loader takes to the device."""
    from timm.data import create_transform

    keys: dict[str, Any] = {"color_jitter": None, "auto_augment": policy, "interpolation": "bilinear"}
    return create_transform(SIDE, is_training=True, use_prefetcher=True, **keys)


def opened(file: Path) -> Image.Image:
    """Reads a file as torchvision's and timm's data sets do."""
    with file.open("rb") as stream:
        return Image.open(stream).convert("RGB")


def one_core(folder: Path) -> dict[tuple[str, str], Callable[[], float]]:
    """Returns what is measured within one process."""
    large, small, wide = (sorted((folder / name / "a").iterdir()) for name in ("large", "small", "wide"))
    torchvision, timm, timm_rand = torchvisions(), timms(), timms(RAND)
    work: dict[tuple[str, str], Callable[[], float]] = {}
    for decode, column in (("fast", "ours"), ("exact", "ours, exact")):
        plain = TrainTransform(ready(SIDE, decode), AugmentationConfig())
        rand = TrainTransform(ready(SIDE, decode), AugmentationConfig(randaugment=RAND))
        objects = DetectionTransform(ready(DETECTION_SIDE, decode), DetectionAugmentation())
        work |= {
            ("crop and flip", column): cpu_milliseconds(partial(augmented, plain), large),
            ("short side 320", column): cpu_milliseconds(partial(augmented, plain), small),
            ("RandAugment", column): cpu_milliseconds(partial(augmented, rand), large),
            ("SSD, 640 x 480 to 320", column): cpu_milliseconds(partial(objects_augmented, objects), wide),
        }
    work |= {
        ("crop and flip", "torchvision"): cpu_milliseconds(lambda f: torchvision(opened(f)), large),
        ("crop and flip", "timm"): cpu_milliseconds(lambda f: timm(opened(f)), large),
        ("short side 320", "torchvision"): cpu_milliseconds(lambda f: torchvision(opened(f)), small),
        ("short side 320", "timm"): cpu_milliseconds(lambda f: timm(opened(f)), small),
        ("RandAugment", "timm"): cpu_milliseconds(lambda f: timm_rand(opened(f)), large),
        ("SSD, 640 x 480 to 320", "torchvision"): cpu_milliseconds(their_ssd(), wide),
        ("decoding alone", "ours"): cpu_milliseconds(lambda f: load_image(f).pixels(), large),
        ("decoding alone", "torchvision"): cpu_milliseconds(opened, large),
    }
    return work


def augmented(transform: TrainTransform, file: Path) -> torch.Tensor:
    """Reads and augments a file as a run does."""
    return transform(load_image(file), next(SEEDS))


def objects_augmented(transform: DetectionTransform, file: Path) -> dict[str, torch.Tensor]:
    """The same for detection."""
    return transform(Sample(load_image(file), BOXES, LABELS), next(SEEDS))


SEEDS = count()
"""Others, too, draw anew in each round."""
BOXES = torch.tensor([[40.0, 60.0, 300.0, 400.0], [350.0, 100.0, 600.0, 300.0], [200.0, 200.0, 260.0, 250.0]])
LABELS = torch.tensor([0, 1, 2])


def their_ssd() -> Callable[[Path], Any]:
    """Builds the SSD preset of torchvision's references, with the resize that its model does."""
    steps = [v2.RandomPhotometricDistort(), v2.RandomZoomOut(fill=(123, 117, 104)), v2.RandomIoUCrop()]
    steps += [v2.RandomHorizontalFlip(), v2.SanitizeBoundingBoxes(), v2.Resize([DETECTION_SIDE] * 2), v2.PILToTensor()]
    transform = v2.Compose(steps)

    def make(file: Path) -> Any:
        boxes = tv_tensors.BoundingBoxes(BOXES, format="XYXY", canvas_size=(480, 640))
        return transform({"image": opened(file), "boxes": boxes, "labels": LABELS})

    return make


# -- loaders -----------------------------------------------------------------------------------------------------------


class _Files(Dataset[Any]):
    """Files and a transform, as torchvision's ``ImageFolder`` reads them."""

    def __init__(self, files: list[Path], transform: Callable[[Image.Image], Any]) -> None:
        self._files, self._transform = files, transform

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Any:
        return self._transform(opened(self._files[index])), 0


@contextmanager
def slow_files(seconds: float) -> Iterator[None]:
    """Has opening a file by Python take so long, here and in processes that are forked meanwhile."""
    plain = os.open, Path.open

    def slow(function: Callable[..., Any], *arguments: Any, **keys: Any) -> Any:
        time.sleep(seconds)
        return function(*arguments, **keys)

    patched: Any = (os, "open", partial(slow, plain[0])), (Path, "open", partialmethod(_self_last, slow, plain[1]))
    for owner, name, function in patched:
        setattr(owner, name, function)
    try:
        yield
    finally:
        for (owner, name, _), function in zip(patched, plain, strict=True):
            setattr(owner, name, function)


def _self_last(path: Path, slow: Callable[..., Any], plain: Callable[..., Any], *arguments: Any, **keys: Any) -> Any:
    return slow(plain, path, *arguments, **keys)


def loaders(folder: Path, size: Size) -> dict[tuple[str, str], Callable[[], float]]:
    """Returns, of each loader, CPU milliseconds an image of all its processes, and images a second."""
    files = sorted((folder / "large" / "a").iterdir())
    files = [files[number % len(files)] for number in range(size.images)]
    single, shards = in_files(folder, files), in_shards(folder, files)
    makers: dict[str, Callable[[], Iterable[Any]]] = {
        "ours": lambda: ours(single, size.workers),
        "ours, shards": lambda: ours(shards, size.workers),
        "torchvision": lambda: DataLoader(_Files(files, torchvisions()), BATCH, num_workers=size.workers),
        "timm": lambda: timm_batches(files, size.workers),
    }
    if (dali := dali_batches(files, size.workers)) is not None:
        makers["DALI"] = dali
    if (spdl := spdl_batches(files, size.workers)) is not None:
        makers["SPDL"] = spdl
    work: dict[tuple[str, str], Callable[[], float]] = {}
    rates: dict[str, float] = {}
    for column, make in makers.items():
        work["two workers: CPU", column] = _loaded(make, size.images, rates, column)
        work["two workers: images/s", column] = partial(rates.__getitem__, column)
    for column in ("ours", "torchvision"):
        slow = _loaded(makers[column], size.images // SLOWER, rates, f"slow {column}", OPENING_SECONDS)
        work["opening takes 20 ms: images/s", column] = partial(_rate, slow, rates, f"slow {column}")
    return work


def _loaded(
    make: Callable[[], Iterable[Any]], count: int, rates: dict[str, float], name: str, delay: float = 0.0
) -> Callable[[], float]:
    def measure() -> float:
        before, start, seen = _cpu_seconds(), time.perf_counter(), 0
        with slow_files(delay) if delay else slow_files(0):
            for batch in make():
                seen += len(batch["image"] if isinstance(batch, dict) else batch[0])
                if seen >= count:
                    break
            batch = None
        rates[name] = seen / (time.perf_counter() - start)
        return max(_cpu_seconds() - before, TICK) * 1000 / seen

    return measure


def _rate(measure: Callable[[], float], rates: Mapping[str, float], name: str) -> float:
    measure()
    return rates[name]


def _cpu_seconds() -> float:
    """Returns the CPU time of this process, and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def in_files(folder: Path, files: list[Path]) -> FileImages:
    """Takes files as images of one class."""
    names = [os.fspath(file.relative_to(folder)) for file in files]
    return FileImages(folder, ["a"], np.zeros(len(files), np.int64), names)


def in_shards(folder: Path, files: list[Path]) -> ShardImages:
    """Packs them as tools.pack does."""
    images = packable(lambda split: in_files(folder, files))["train"]
    pack(images, folder / "packed", "train", short_side=None, quality=90, count=100, workers=1)
    return open_shards(ShardData(source="shards", root=folder / "packed"), "train")


def ours(images: LabelledImages, workers: int) -> Iterable[Any]:
    """Reads as a run does."""
    reader = ImageReader(images, TrainTransform(ready(SIDE), AugmentationConfig()), 0)
    draws = [Draw(number, 0, number) for number in range(len(images))]
    batches = [draws[first : first + BATCH] for first in range(0, len(draws), BATCH)]
    settings = WorkerSettings(workers=workers, read_threads=READ_THREADS, sample_bytes=3 * SIDE**2)
    return read_batches(reader, batches, settings)


def timm_batches(files: list[Path], workers: int) -> Iterable[Any]:
    """Reads with timm's loader, without its prefetcher, which needs a GPU."""
    from timm.data import create_loader

    keys: dict[str, Any] = {"is_training": False, "use_prefetcher": False, "num_workers": workers}
    given: Any = _Files(files, timms())
    return create_loader(given, (3, SIDE, SIDE), BATCH, persistent_workers=False, **keys)


def dali_batches(files: list[Path], workers: int) -> Callable[[], Iterable[Any]] | None:
    """Builds DALI's pipeline on the CPU: decoding of a random crop, resize, flip."""
    try:
        dali: Any = import_module("nvidia.dali")
        fn: Any = import_module("nvidia.dali.fn")
    except (ImportError, OSError):
        return None

    @dali.pipeline_def(batch_size=BATCH, num_threads=workers, device_id=None)
    def pipeline() -> Any:
        data, labels = fn.readers.file(files=[os.fspath(file) for file in files])
        images = fn.decoders.image_random_crop(data, device="cpu", random_area=[0.08, 1.0])
        images = fn.resize(images, size=[SIDE, SIDE], interp_type=dali.types.INTERP_TRIANGULAR)
        return fn.flip(images, horizontal=fn.random.coin_flip()), labels

    def batches() -> Iterator[Any]:
        built = pipeline()
        built.build()
        for _ in range(-(-len(files) // BATCH)):
            images, labels = built.run()
            yield images.as_array(), labels

    return batches


def spdl_batches(files: list[Path], workers: int) -> Callable[[], Iterable[Any]] | None:
    """Builds SPDL's pipeline: threads that decode a whole image to the model's size, which is all that it has."""
    try:
        spdl_io: Any = import_module("spdl.io")
        spdl_pipeline: Any = import_module("spdl.pipeline")
        spdl_io.load_image_batch([os.fspath(files[0])], width=SIDE, height=SIDE, device_config=None)
    except (ImportError, OSError, RuntimeError):  # it is there, but not the FFmpeg that it needs
        return None

    def batches() -> Iterator[Any]:
        groups = [[os.fspath(f) for f in files[first : first + BATCH]] for first in range(0, len(files), BATCH)]

        def decoded(group: list[str]) -> Any:
            buffer = spdl_io.load_image_batch(group, width=SIDE, height=SIDE, device_config=None)
            return (spdl_io.to_numpy(buffer),)

        built = spdl_pipeline.PipelineBuilder().add_source(iter(groups)).pipe(decoded, concurrency=workers).add_sink(2)
        with (pipe := built.build(num_threads=workers)).auto_stop():
            yield from pipe.get_iterator(timeout=60)

    return batches
