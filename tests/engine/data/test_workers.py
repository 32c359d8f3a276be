from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import default_collate

import engine
from engine.data import lost_workers
from engine.data.batch_plan import Draw
from engine.data.lost_workers import WorkerLostError, loss_of
from engine.data.names import Names
from engine.data.workers import WorkerSettings, read_batches, resolve_workers, stacked
from engine.distributed.layout import Layout
from engine.errors import UserError
from tests.mounts import with_tmpfs

REPOSITORY = Path(engine.__path__[0]).parent


class Numbers:
    """Samples that say what drew them and where; the one of index 5 is broken if so wanted."""

    def __init__(self, broken: bool = False, bug: bool = False) -> None:
        self.broken = broken
        self.bug = bug

    def __getitem__(self, draw: Draw):
        if self.broken and draw.index == 5:
            raise UserError("images/5.jpg: cannot be read\nreplace it")
        if self.bug and draw.index == 5:
            raise ZeroDivisionError
        return {"value": 10 * draw.index, "pid": os.getpid(), "threads": torch.get_num_threads()}


class Signalled:
    """Sends its process every stop signal before each sample."""

    def __getitem__(self, draw: Draw):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(os.getpid(), number)
        return draw.index


def batches_of(*sizes: int) -> list[list[Draw]]:
    first = [sum(sizes[:k]) for k in range(len(sizes))]
    return [[Draw(i, 0, i) for i in range(start, start + size)] for start, size in zip(first, sizes, strict=True)]


@pytest.mark.parametrize(("workers", "context"), [(0, None), (1, "fork"), (3, "fork"), (1, "spawn")])
def test_batches_arrive_in_order_and_collated(workers, context):
    settings = WorkerSettings(workers, multiprocessing_context=context)
    found = list(read_batches(Numbers(), batches_of(2, 3, 1, 2), settings))
    assert [batch["value"].tolist() for batch in found] == [[0, 10], [20, 30, 40], [50], [60, 70]]
    pids = {int(pid) for batch in found for pid in batch["pid"]}
    assert len(pids) == max(workers, 1)
    assert (os.getpid() in pids) == (workers == 0)
    if workers:
        assert all(int(threads) == 1 for batch in found for threads in batch["threads"])


class Large:
    """A data set of many names, whose samples say whether those lie in memory that processes share."""

    def __init__(self) -> None:
        self.names = Names(f"{i}.jpg" for i in range(100_000))

    def __getitem__(self, draw: Draw):
        address = self.names.content.__array_interface__["data"][0]
        flags = ""
        for line in Path("/proc/self/maps").read_text().splitlines():
            first, last = (int(end, 16) for end in line.split()[0].split("-"))
            flags = line.split()[1] if first <= address < last else flags
        return {"shared": flags.endswith("s"), "number": int(self.names[draw.index].removesuffix(".jpg"))}


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_workers_that_are_no_forks_map_one_copy_of_the_arrays(context):
    settings = WorkerSettings(1, multiprocessing_context=context)
    (batch,) = read_batches(Large(), batches_of(3), settings)
    assert batch["number"].tolist() == [0, 1, 2]
    assert batch["shared"].all()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_users_error_arrives_as_it_was_raised(workers):
    reading = read_batches(Numbers(broken=True), batches_of(2, 2, 3, 2), WorkerSettings(workers))
    assert next(reading)["value"].tolist() == [0, 10]
    assert next(reading)["value"].tolist() == [20, 30]
    with pytest.raises(UserError) as caught:
        next(reading)
    assert str(caught.value) == "images/5.jpg: cannot be read\nreplace it"


def test_a_bug_in_a_worker_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError, match="raise ZeroDivisionError"):
        list(read_batches(Numbers(bug=True), batches_of(6), WorkerSettings(1)))


@pytest.mark.parametrize("workers", [0, 2])
def test_reading_draws_nothing_from_torchs_global_generator(workers):
    before = torch.get_rng_state()
    list(read_batches(Numbers(), batches_of(2, 2), WorkerSettings(workers)))
    assert torch.equal(before, torch.get_rng_state())


def test_workers_outlive_stop_signals():
    found = list(read_batches(Signalled(), batches_of(2, 2, 2), WorkerSettings(2)))
    assert [batch.tolist() for batch in found] == [[0, 1], [2, 3], [4, 5]]


def is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_workers_outlive_stop_signals_that_come_while_they_start():
    """As when a scheduler tells every process of a job at once."""
    group = """
import os, signal, threading
from tests_numbers import Numbers, batches_of
from engine.process.signals import StopRequest
from engine.data.workers import WorkerSettings, read_batches
os.setpgid(0, 0)
stop, ended = StopRequest().install(), threading.Event()
def tell():
    while not ended.wait(0.001):
        os.killpg(0, signal.SIGTERM)
threading.Thread(target=tell).start()
for _ in range(3):
    assert len(list(read_batches(Numbers(), batches_of(*[2] * 6), WorkerSettings(3)))) == 6
ended.set()
print(stop.signal.name)
"""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tests_numbers.py").write_text(Path(__file__).read_text())
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), folder]), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", group], env=environment, capture_output=True, text=True, timeout=600
        )
    assert (done.returncode, done.stdout) == (0, "SIGTERM\n"), done.stderr


def test_closing_the_iteration_ends_the_workers():
    reading = read_batches(Numbers(), iter(batches_of(*[2] * 1000)), WorkerSettings(2))
    pids = {int(next(reading)["pid"][0]) for _ in range(4)}
    assert len(pids) == 2
    assert all(is_running(pid) for pid in pids)
    reading.close()
    assert not any(is_running(pid) for pid in pids)


SCRIPT = """
import os, signal, sys
from tests_numbers import Numbers, batches_of
from engine.data.workers import WorkerSettings, read_batches
reading = read_batches(Numbers(), batches_of(*[2] * 1000), WorkerSettings(2))
print(*sorted({int(next(reading)["pid"][0]) for _ in range(4)}), flush=True)
if sys.argv[1] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
raise SystemExit(3) if sys.argv[1] == "exit" else KeyError("a bug")
"""


@pytest.mark.parametrize(("way", "code"), [("exit", 3), ("bug", 1), ("kill", -9)])
def test_a_process_that_ends_while_reading_leaves_no_worker(tmp_path, way, code):
    (tmp_path / "tests_numbers.py").write_text(Path(__file__).read_text())
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, tmp_path / "script.py", way], env=environment, capture_output=True, text=True, timeout=600
    )
    assert process.returncode == code, process.stderr
    pids = [int(pid) for pid in process.stdout.split()]
    deadline = time.monotonic() + 20
    while any(is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(pids) == 2
    assert not any(is_running(pid) for pid in pids)


def test_auto_shares_the_cores_among_the_ranks_of_a_node(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    assert resolve_workers("auto", Layout(), {}) == 15
    assert resolve_workers("auto", Layout(0, 4, 0, 4, "torchrun"), {}) == 3
    assert resolve_workers("auto", Layout(0, 4, 0, 4, "torchrun"), {"SLURM_CPUS_PER_TASK": "16"}) == 3
    assert resolve_workers("auto", Layout(0, 4, 0, 4, "slurm"), {}) == 3
    assert resolve_workers("auto", Layout(0, 4, 0, 4, "slurm"), {"SLURM_CPUS_PER_TASK": "6"}) == 5
    assert resolve_workers("auto", Layout(0, 64, 0, 64, "torchrun"), {}) == 1


def test_a_bound_rank_counts_the_cores_it_may_run_on(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    assert resolve_workers("auto", Layout(0, 4, 0, 4, "slurm"), {"SLURM_CPUS_PER_TASK": "8"}) == 2


def test_an_explicit_number_of_workers_stays():
    assert resolve_workers(0, Layout(), {}) == 0
    assert resolve_workers(7, Layout(0, 4, 0, 4, "torchrun"), {}) == 7


class Big:
    """Samples of 400 kB."""

    def __getitem__(self, draw: Draw):
        return torch.full((400_000,), draw.index, dtype=torch.uint8)


class Filling:
    """Samples of which two images leave no room in shared memory for the rest of their batch."""

    def __getitem__(self, draw: Draw):
        room = os.statvfs("/dev/shm")
        return {"image": torch.zeros(room.f_bavail * room.f_bsize // 2, dtype=torch.uint8), "index": draw.index}


IN_LITTLE_MEMORY = """
import logging
from tests_numbers import Big, Filling, batches_of
from engine.data.workers import WorkerSettings, read_batches
logging.basicConfig(format="%(message)s")
print([batch[:, -1].tolist() for batch in read_batches(Big(), batches_of(*[2] * 4), WorkerSettings(2))])
settings = WorkerSettings(1, prefetch=1)
print([batch["index"].tolist() for batch in read_batches(Filling(), batches_of(*[2] * 4), settings)])
logging.warning("now without")
settings = WorkerSettings(2, sample_bytes=400_000)
print([batch[:, -1].tolist() for batch in read_batches(Big(), batches_of(*[2] * 4), settings)])
"""


def test_the_main_process_reads_on_where_shared_memory_has_a_megabyte(tmp_path):
    (tmp_path / "tests_numbers.py").write_text(Path(__file__).read_text())
    (tmp_path / "script.py").write_text(IN_LITTLE_MEMORY)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [*with_tmpfs(Path("/dev/shm"), "1m"), sys.executable, str(tmp_path / "script.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout) == (0, "[[0, 1], [2, 3], [4, 5], [6, 7]]\n" * 3), done.stderr
    assert "shared memory, /dev/shm, has no room for the batches of 2 processes (" in done.stderr
    assert "MB are free); give the container or job more" in done.stderr and "the main process reads on" in done.stderr
    assert done.stderr.endswith("now without\n"), "forks whose batches have a known size need none of it"


@pytest.mark.parametrize("workers", [1, 2])
def test_forks_fill_the_same_memory_again_and_none_that_is_in_use(workers):
    settings = WorkerSettings(workers, prefetch=1, sample_bytes=400_000)
    held = list(read_batches(Big(), batches_of(*[2] * 20), settings))
    assert [batch[:, ::1000].unique(dim=1).flatten().tolist() for batch in held] == [
        [k, k + 1] for k in range(0, 40, 2)
    ]
    places = {batch.data_ptr() for batch in read_batches(Big(), batches_of(*[2] * 20), settings)}
    assert len(places) <= 4 * workers


def test_what_is_stacked_is_as_torch_stacks_it():
    samples = [
        {"image": torch.full((2, 3), k), "label": k, "time": k / 3, "name": str(k), "both": (k, torch.tensor(k > 1))}
        for k in range(3)
    ]
    ours, theirs = stacked(samples), default_collate(samples)
    assert ours.keys() == theirs.keys() and ours["name"] == theirs["name"] == ["0", "1", "2"]
    for key in ("image", "label", "time"):
        assert torch.equal(ours[key], theirs[key]) and ours[key].dtype == theirs[key].dtype
    assert all(torch.equal(a, b) for a, b in zip(ours["both"], theirs["both"], strict=True))


class Frozen:
    """Says how many objects this process never looks at for garbage."""

    def __getitem__(self, draw: Draw):
        return gc.get_freeze_count()


def test_forks_look_for_no_garbage_among_what_they_share():
    assert all(int(batch.min()) > 1000 for batch in read_batches(Frozen(), batches_of(1, 1), WorkerSettings(1)))
    assert gc.get_freeze_count() == 0, "this process still does"


class Announced:
    """Samples of batches that were announced before they are asked for, each once."""

    def __init__(self) -> None:
        self.coming: list[int] = []

    def announce(self, draws: list[Draw], threads: int) -> None:
        assert threads == 5
        self.coming += [draw.index for draw in draws]

    def __getitem__(self, draw: Draw):
        assert self.coming.pop(0) == draw.index
        return draw.index, len(self.coming)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_know_their_next_batch(workers):
    found = list(read_batches(Announced(), batches_of(2, 3, 1, 2, 2), WorkerSettings(workers, read_threads=5)))
    assert [batch[0].tolist() for batch in found] == [[0, 1], [2, 3, 4], [5], [6, 7], [8, 9]]
    left = [int(batch[1][-1]) for batch in found]
    assert left == {0: [3, 1, 2, 2, 0], 1: [3, 1, 2, 2, 0], 2: [1, 2, 2, 0, 0]}[workers]


def test_no_thread_reads_ahead_where_none_is_asked_for():
    with pytest.raises(IndexError):
        list(read_batches(Announced(), batches_of(2), WorkerSettings(0)))


def test_more_workers_than_cores_are_told_once_and_by_us_alone(monkeypatch, caplog, recwarn):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    settings = WorkerSettings(3)
    for _ in range(2):
        assert len(list(read_batches(Numbers(), batches_of(1, 1, 1), settings))) == 3
    told = [record.getMessage() for record in caplog.records if "cores" in record.getMessage()]
    assert told == [lost_workers.told_of_cores(3, 2)] and told[0].startswith("data.workers: 3 processes share 2 cores")
    assert not [str(warning.message) for warning in recwarn if "DataLoader" in str(warning.message)]
    assert not lost_workers.told_of_cores(2, 2)


@pytest.mark.parametrize(
    ("prefetch", "workers", "batch", "room", "expected"),
    [
        (2, 4, 10**8, lost_workers.READY_BYTES, 2),
        (8, 4, 10**8, lost_workers.READY_BYTES, 5),
        (8, 64, 10**9, lost_workers.READY_BYTES, 1),
        (2, 2, 10**6, 3 * 10**6, 1),
        (4, 2, 0, 0, 1),
    ],
)
def test_what_is_kept_ready_is_bounded_in_bytes(prefetch, workers, batch, room, expected):
    found, text = lost_workers.fitting_prefetch(prefetch, workers, batch, room)
    assert found == expected and bool(text) == (found < prefetch)
    assert ("/dev/shm" in text) == (bool(text) and room < lost_workers.READY_BYTES)


def test_the_ranks_of_a_node_share_its_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(lost_workers, "SHARED", tmp_path)
    monkeypatch.setattr(lost_workers.shutil, "disk_usage", lambda path: SimpleNamespace(free=64 * 2**20))
    assert lost_workers.room_for_batches(1) == 32 * 2**20 and lost_workers.room_for_batches(4) == 8 * 2**20
    monkeypatch.setattr(lost_workers.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**40))
    assert lost_workers.room_for_batches(8) == lost_workers.READY_BYTES
    monkeypatch.setattr(lost_workers, "SHARED", tmp_path / "none")
    assert lost_workers.room_for_batches(8) == lost_workers.READY_BYTES


class Noted(Numbers):
    """Notes in a file what has been drawn."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    def __getitem__(self, draw: Draw):
        with self.file.open("a") as file:
            file.write(f"{draw.index}\n")
        return super().__getitem__(draw)


def test_fewer_large_batches_are_read_before_they_are_asked_for_and_that_is_said_once(tmp_path, caplog):
    ready = {}
    for room in (60, 40):
        file, settings = tmp_path / str(room), WorkerSettings(1, prefetch=3, sample_bytes=10, ready_bytes=room)
        for _ in range(2):
            file.unlink(missing_ok=True)
            reading = read_batches(Noted(file), batches_of(*[2] * 9), settings)
            next(reading)
            deadline = time.monotonic() + (60 if room == 60 else 0.5)  # in which nothing more is to come
            while time.monotonic() < deadline and len(file.read_text().split()) < 2 * 4:
                time.sleep(0.01)
            ready[room] = len(file.read_text().split()) // 2 - 1
            reading.close()
    assert ready == {60: 3, 40: 2}
    (text,) = caplog.messages
    assert text.startswith("data.prefetch: each of 1 workers keeps 2 instead of 3 batches of 2e-05 MB ready: ")


class Killed:
    """Kills the worker that reads sample 5, as long as a file says so."""

    def __init__(self, file: Path, always: bool = False, how: signal.Signals = signal.SIGKILL) -> None:
        self.file, self.always, self.how = file, always, how

    def __getitem__(self, draw: Draw):
        if draw.index == 5 and self.file.exists():
            if not self.always:
                self.file.unlink()
            os.kill(os.getpid(), self.how)
        return {"value": draw.index, "pid": os.getpid()}


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    (tmp_path / "mark").touch()
    return tmp_path / "mark"


def test_a_worker_that_is_killed_costs_no_sample(mark, caplog):
    found = list(read_batches(Killed(mark), batches_of(2, 2, 3, 2, 2), WorkerSettings(2)))
    assert [batch["value"].tolist() for batch in found] == [[0, 1], [2, 3], [4, 5, 6], [7, 8], [9, 10]]
    assert "data.workers: a process that reads images was killed by SIGKILL" in caplog.text
    assert "(--mem), or set fewer than 2 data.workers; 2 new ones go on" in caplog.text


def test_workers_that_are_killed_again_and_again_end_the_run(mark):
    with pytest.raises(WorkerLostError, match="given up after 3 new starts"):
        list(read_batches(Killed(mark, always=True), batches_of(2, 4), WorkerSettings(1)))


def test_where_shared_memory_is_full_the_main_process_reads_on(mark, caplog):
    found = list(read_batches(Killed(mark, how=signal.SIGBUS), batches_of(2, 2, 3, 2), WorkerSettings(2)))
    assert [batch["value"].tolist() for batch in found] == [[0, 1], [2, 3], [4, 5, 6], [7, 8]]
    assert int(found[-1]["pid"][0]) == os.getpid()
    assert "shared memory, /dev/shm, has no room for the batches of 2 processes" in caplog.text
    assert "docker run --shm-size" in caplog.text and "the main process reads on" in caplog.text


@pytest.mark.parametrize(
    "reason",
    [
        "unable to write to file </torch_12_34_0>: No space left on device (28)",
        "unable to allocate shared memory(shm) for file </torch_12_34_0>: No space left on device (28)",
        "unable to resize file </torch_1_2_0> to the right size: No space left on device (28)",
    ],
)
def test_what_torch_says_of_full_shared_memory_is_known(reason):
    text = f"Caught RuntimeError in DataLoader worker process 0.\nTraceback\nRuntimeError: {reason}\n"
    assert loss_of(RuntimeError(text), [None, None]) == signal.SIGBUS
    assert loss_of(RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nboom"), [None, 1]) is None


def test_the_main_process_is_interrupted_by_no_worker_that_is_gone(mark):
    reading = read_batches(Killed(mark), batches_of(2, 2, 3, 2, 2), WorkerSettings(1))
    assert next(reading)["value"].tolist() == [0, 1]
    deadline = time.monotonic() + 60
    while mark.exists() and time.monotonic() < deadline:  # the worker kills itself meanwhile
        time.sleep(0.01)
    time.sleep(0.2)
    assert [batch["value"].tolist() for batch in reading] == [[2, 3], [4, 5, 6], [7, 8], [9, 10]]
