"""``python -m tools.pack --config FILE --output DIR``: many small files into few tar files; see ``--help``."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shlex
import sys
import tarfile
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from engine.commands.arguments import command_parser
from engine.commands.entry import exit_code
from engine.config.load import load_config
from engine.data.index import Listed, read_index, write_index
from engine.data.shards import content_digest
from engine.data.unreadable import NAMED, UnreadableError
from engine.datasets.shard_images import INDEX
from engine.distributed.layout import Layout, own_cores
from engine.errors import UserError
from engine.files import check_writable, shown
from engine.images.lazy_image import load_image
from engine.log import setup_logging
from engine.process.signals import end_with_parent
from engine.task.other_tasks import task_of
from engine.task.packing import Packable
from engine.task.spec import find_spec

VERSION = 2


@dataclass(frozen=True)
class Job:
    """One tar file."""

    file: Path
    first: int
    """Number of its first image."""
    sources: list[Path]
    endings: list[str]
    labels: list[tuple[str, bytes] | None]
    sizes: NDArray[np.int64] | None
    """Widths and heights that they must have."""
    short_side: int | None
    quality: int
    plan: str
    """Digest of all that decides what is packed."""


class Written(NamedTuple):
    """What has come of a :class:`Job`."""

    table: NDArray[np.int64]
    """(N, 5): offset, size in bytes, width and height of each image, 0 of those that are as they were; a digest of what
    is in each."""
    faults: list[str]
    """What is wrong with images that training would not take."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Packs what the command line names. Returns 0, or 2 for wrong input."""
    parser = command_parser(
        "python -m tools.pack",
        "Packs the images of a run's configuration into tar files with an index, in the order in which the run sees "
        "them; data.source=shards data.root=DIR reads them. Goes on where it was interrupted. Decodes each image, and "
        "refuses those that training would refuse.",
        [
            "python -m tools.pack --config shop.yaml --output /scratch/shop",
            "python -m tools.pack --config shop.yaml --output /scratch/shop_320 --short-side 320 --quality 90",
        ],
    )
    parser.add_argument("--task", metavar="TASK", help="whose configuration it is (default: the task that can read it)")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the run's configuration")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder of the tar files")
    parser.add_argument(
        "--short-side", type=int, metavar="N", help="make images smaller whose shorter side has more than N pixels"
    )
    parser.add_argument("--quality", type=int, default=90, metavar="Q", help="of the JPEG files of these (default: 90)")
    parser.add_argument(
        "--shard-images", type=int, default=10_000, metavar="N", help="images a tar file (default: 10000)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: the cores)")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="settings that win over the file's")
    options = parser.parse_intermixed_args(arguments)
    given = {options.short_side, options.shard_images, options.workers} - {None}
    if min(given) < 1 or not 1 <= options.quality <= 100:
        parser.error("--short-side, --shard-images and --workers are at least 1, --quality is 1 to 100")

    def command() -> int:
        task = options.task or task_of(options.config, options.overrides)
        config = load_config(find_spec(task).schema(), options.config, options.overrides)
        check_writable(options.output, "--output")
        with setup_logging(0, 1):
            packable_splits = find_spec(task).packable
            if packable_splits is None:
                raise UserError(f"--task: {task} has nothing to be packed")
            splits = packable_splits(config)
        workers = options.workers or own_cores(Layout(), os.environ)
        max_unreadable = getattr(getattr(config, "data", None), "max_unreadable", 0)
        for split, packable in splits.items():
            sizes = options.short_side, options.quality, options.shard_images
            print(pack(packable, options.output.absolute(), split, *sizes, workers, max_unreadable), flush=True)
        print(f"to train on them: data.source=shards {shlex.quote(f'data.root={shown(options.output)}')}")
        return 0

    return exit_code(command)


def pack(
    packable: Packable,
    folder: Path,
    split: str,
    short_side: int | None,
    quality: int,
    count: int,
    workers: int,
    max_unreadable: int = 0,
) -> str:
    """Packs a split, or what an earlier call has not packed of it; returns what there is now, in a few lines.

    Args:
        packable: The images.
        folder: Where the tar files lie.
        split: What they are called by.
        short_side: Pixels; images with a longer shorter side are made smaller. None: files stay as they are.
        quality: Of the JPEG files of these.
        count: Images a tar file.
        workers: Processes.
        max_unreadable: How many images of train may be ones that training has to skip. They are packed as they are, so
            that a run sees the same; as are those of test, which training does not read.

    Raises:
        UserError: more images cannot be read, or other data, or other settings, have been packed there.
    """
    plan = _plan(packable, short_side, quality if short_side else 0, count)
    index = folder / INDEX.format(split)
    names = [f"{split}-{number:06d}.tar" for number in range(-(-len(packable.names) // count))]
    finished = read_index(index)
    if finished is None:
        jobs = _jobs(packable, [folder / name for name in names], short_side, quality, count, plan)
        with ProcessPoolExecutor(min(workers, len(names)), initializer=end_with_parent) as pool:
            done = [*_done(pool, jobs, 2 * workers)]
        faults = [fault for part in done for fault in part.faults]
        if split != "test" and len(faults) > (max_unreadable if split == "train" else 0):
            raise UserError(_refused(split, faults, max_unreadable))
        table = np.concatenate([np.insert(part.table, 0, number, axis=1) for number, part in enumerate(done)])
        finished = Listed(
            {**packable.resized(packable.arrays, table[:, 3:5]), "pieces": table[:, [0, 1, 2, 5]]},
            {
                **packable.facts,
                "kind": packable.kind,
                "plan": plan,
                "shards": names,
                "sizes": [(folder / name).stat().st_size for name in names],
                "version": uuid.uuid4().hex,
                "faults": faults,
            },
            [],
        )
        write_index(index, finished)
        for rest in folder.glob(f".{split}-*.tar*"):  # and of calls that were killed
            rest.unlink(missing_ok=True)
    _require_same(finished, plan, index)
    total = sum(finished.facts["sizes"])
    text = f"{split}: {len(packable.names)} images in {len(names)} tar files, {total / 1e6:.1f} MB, and {shown(index)}"
    if short_side and packable.sizes is not None:
        text += (
            f"\n{split}: boxes and areas are in pixels of the smaller images; AP_small, _medium and _large go by these"
        )
    if told := finished.facts.get("faults"):
        why = "training reads none of test" if split == "test" else "a run skips them, as data.max_unreadable allows"
        text += f"\n{split}: {len(told)} images cannot be used, and are packed as they are: {why}:\n{_first(told)}"
    return text


def _refused(split: str, faults: list[str], max_unreadable: int) -> str:
    """Returns a message about images that training would refuse."""
    more = f", more than the {max_unreadable} of data.max_unreadable" if split == "train" else ""
    return (
        f"{len(faults)} images of {split} cannot be used{more}: training would refuse them:\n{_first(faults)}\nrepair, "
        "replace or remove them, and call again: what is packed of other images stays"
    )


def _first(faults: list[str]) -> str:
    return "\n".join([*faults[:NAMED], *([f"and {len(faults) - NAMED} more"] if len(faults) > NAMED else [])])


def _plan(packable: Packable, *settings: int | None) -> str:
    digest = hashlib.sha256(json.dumps([VERSION, packable.kind, packable.facts, settings]).encode())
    for name in sorted(packable.arrays):
        digest.update(np.ascontiguousarray(packable.arrays[name]).data)
    return digest.hexdigest()


def _require_same(known: Listed, plan: str, file: Path) -> None:
    if known.facts["plan"] != plan:
        raise UserError(f"--output: {file} is of other images, or other settings: name another folder, or remove this")


def _jobs(
    packable: Packable, files: Sequence[Path], short_side: int | None, quality: int, count: int, plan: str
) -> Iterator[Job]:
    for number, file in enumerate(files):
        indices = range(number * count, min((number + 1) * count, len(packable.names)))
        yield Job(
            file,
            indices.start,
            [packable.path(index) for index in indices],
            [os.path.splitext(packable.names[index])[1].lower() or ".jpg" for index in indices],
            [packable.label(index) for index in indices],
            None if packable.sizes is None else packable.sizes[indices.start : indices.stop],
            short_side,
            quality,
            plan,
        )


def _done(pool: ProcessPoolExecutor, jobs: Iterable[Job], at_once: int) -> Iterator[Written]:
    """Yields what comes of the jobs, in order; never are many of them there at a time, since each names its images."""
    running = deque[Future[Written]]()
    for job in jobs:
        running.append(pool.submit(write_shard, job))
        if len(running) >= at_once:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def _part(file: Path) -> Path:
    """Returns the file that says, once the tar file is whole, where its images lie."""
    return file.with_name(f".{file.name}.part")


def write_shard(job: Job) -> Written:
    """Writes a tar file, unless it is there with nothing wrong in it, and reads it again to compare.

    Raises:
        UserError: a file cannot be read, or the tar file is of other images.
    """
    if (known := read_index(_part(job.file))) is not None and job.file.exists():
        _require_same(known, job.plan, job.file)
        if job.file.stat().st_size == known.facts["size"] and not known.facts.get("faults"):
            return Written(known.arrays["table"].copy(), [])
    job.file.parent.mkdir(parents=True, exist_ok=True)
    aside = job.file.with_name(f".{job.file.name}.{uuid.uuid4().hex[:12]}")
    rows, faults = list[tuple[int, ...]](), list[str]()
    try:
        with aside.open("xb") as stream, tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for number, (source, ending, label) in enumerate(
                zip(job.sources, job.endings, job.labels, strict=True), job.first
            ):
                wanted = None if job.sizes is None else tuple(job.sizes[number - job.first].tolist())
                content, size, fault = _content(source, job.short_side, job.quality, wanted)
                faults += [fault] if fault else []
                offset = _add(tar, f"{number:09d}{'.jpg' if size else ending}", content)
                rows.append((offset, len(content), *(size or (0, 0)), content_digest(content)))
                if label is not None:
                    _add(tar, f"{number:09d}{label[0]}", label[1])
        with aside.open("rb+") as written:
            os.fsync(written.fileno())
            for offset, length, _, _, digest in rows:
                if content_digest(os.pread(written.fileno(), length, offset)) != digest:
                    raise OSError(5, "what is read is not what was written", os.fspath(job.file))
        os.replace(aside, job.file)
    except OSError as error:
        raise OSError(error.errno, error.strerror, error.filename or os.fspath(job.file)) from None
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()
    table = np.array(rows, np.int64)
    facts = {"plan": job.plan, "size": job.file.stat().st_size, "faults": faults}
    write_index(_part(job.file), Listed({"table": table}, facts, []))
    return Written(table, faults)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Returns the offset of the content."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    offset = tar.offset + len(member.tobuf(tar.format))
    tar.addfile(member, io.BytesIO(content))
    tar.members = []  # type: ignore[attr-defined]  # it would keep them all
    return offset


def _content(
    source: Path, short_side: int | None, quality: int, wanted: tuple[int, ...] | None
) -> tuple[bytes, tuple[int, int] | None, str]:
    """Returns the bytes of an image file, made smaller if it is too large; its new width and height then; and what
    training would say of it, if it would not take it: such a file stays as it is.
    """
    try:
        content = source.read_bytes()
    except OSError as error:
        raise UserError(f"{source}: cannot be read: {error.strerror}") from None
    try:
        image = load_image(source, content)
        pixels = image.pixels()
    except UnreadableError as error:
        return content, None, str(error)
    if wanted is not None and image.size != wanted:
        sizes = f"has {image.width} x {image.height} pixels, but its annotations are for {wanted[0]} x {wanted[1]}"
        return content, None, f"{source}: {sizes}; correct width and height in the JSON file, or the image"
    if short_side is None or min(image.size) <= short_side:
        return content, None, ""
    scale = short_side / min(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    smaller = np.ascontiguousarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    return simplejpeg.encode_jpeg(smaller, quality, "RGB", "420"), size, ""


if __name__ == "__main__":
    sys.exit(main())
