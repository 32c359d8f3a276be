"""What real groups of processes tell each other."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.config.run import DistributedConfig
from engine.distributed.connect import connect
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.distributed.rendezvous import meeting_name
from engine.errors import UserError
from tests.distributed import run_ranks, slurm_environment

CPU = DistributedConfig(device="cpu")


def test_single_process_needs_no_group(tmp_path: Path) -> None:
    ranks = connect(CPU, Layout(), tmp_path)
    rows = torch.rand(3, 2)
    assert ranks.is_main and ranks.backend is None and not torch.distributed.is_initialized()
    assert ranks.gather_rows(rows) is rows
    assert ranks.gather_counts(4) == [4]
    assert ranks.gather("é") == ["é"]
    assert ranks.from_main(lambda: rows) is rows
    assert torch.equal(ranks.sum_(rows.clone()), rows)
    ranks.barrier()
    ranks.close()
    assert list(tmp_path.iterdir()) == []


def told_of_signals(ranks: Ranks, came: list[str]) -> list[str]:
    if name := came[ranks.rank]:
        ranks.stop.hear(name)
    cause = ranks.cause_of_stop()
    assert cause == ranks.stop.signal
    return [cause.name]


def test_a_signal_to_one_rank_is_the_cause_of_the_stop_on_all() -> None:
    assert run_ranks(2, told_of_signals, ["", "SIGUSR1"]) == [["SIGUSR1"], ["SIGUSR1"]]


TEXTS = ["", "Grüße, 世界 🦢\nsecond line", "\udcff undecodable byte of a path"]


def talk(ranks: Ranks) -> dict[str, Any]:
    """Every collective once; rank r has r rows (none on rank 0) and the r-th text."""
    rank = ranks.rank
    answers: dict[str, Any] = {}

    def decide() -> Path:
        answers["asked"] = True
        return Path("folder/ü")

    def refuse() -> str:
        raise UserError("no such folder: ü\nsecond line")

    def fail() -> str:
        raise OSError("disk full")

    answers["decided"] = ranks.from_main(decide) == Path("folder/ü")
    with pytest.raises(UserError) as caught:
        ranks.from_main(refuse)
    answers["refused"] = str(caught.value)
    with pytest.raises((OSError, RuntimeError)) as failed:
        ranks.from_main(fail)
    answers["failed"] = f"{type(failed.value).__name__}: {failed.value}"
    with torch.inference_mode():  # as in evaluation
        rows = torch.arange(2.0 * rank).reshape(rank, 2) + 10 * rank
        answers["rows"] = ranks.gather_rows(rows).clone()
    for dtype in (torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool):
        answers[str(dtype)] = ranks.gather_rows(torch.full((rank + 1,), rank, dtype=dtype))
    answers["nothing"] = ranks.gather_rows(torch.zeros(0, 3, 4))
    answers["counts"] = ranks.gather_counts(5 * rank)
    answers["texts"] = ranks.gather(TEXTS[rank])
    answers["objects"] = ranks.gather({"rank": rank, "nothing": None})
    mine = torch.tensor([float(rank + 1), 0.5])
    answers["sum_in_place"] = ranks.sum_(mine) is mine
    answers["sum"] = mine
    ranks.barrier()
    answers["layout"] = [ranks.rank, ranks.world_size, ranks.layout.local_world_size, ranks.layout.launcher]
    answers["backend"] = ranks.backend
    answers["timeout"] = torch.distributed.group.WORLD._get_backend(ranks.device).options._timeout.total_seconds()
    answers["flight recorder"] = os.environ.get("TORCH_FR_BUFFER_SIZE")
    return answers


@pytest.mark.parametrize("world_size, slurm_job", [(2, "71"), (3, None)])
def test_collectives(world_size: int, slurm_job: str | None, tmp_path: Path) -> None:
    results = run_ranks(world_size, talk, slurm_job=slurm_job, meeting_place=tmp_path / "meet" / "here")
    rows = torch.cat([torch.arange(2.0 * r).reshape(r, 2) + 10 * r for r in range(world_size)])
    for rank, answers in enumerate(results):
        assert answers["decided"]
        assert answers.get("asked", False) == (rank == 0)
        assert answers["refused"] == "no such folder: ü\nsecond line"
        assert answers["failed"] == ("RuntimeError: rank 0 failed: disk full" if rank else "OSError: disk full")
        assert torch.equal(answers["rows"], rows)
        for dtype in (torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool):
            expected = torch.cat([torch.full((r + 1,), r, dtype=dtype) for r in range(world_size)])
            assert answers[str(dtype)].dtype == dtype
            assert torch.equal(answers[str(dtype)], expected)
        assert answers["nothing"].shape == (0, 3, 4)
        assert answers["counts"] == [5 * r for r in range(world_size)]
        assert answers["texts"] == TEXTS[:world_size]
        assert answers["objects"] == [{"rank": r, "nothing": None} for r in range(world_size)]
        assert answers["sum_in_place"] is True
        assert answers["sum"].tolist() == [sum(range(world_size + 1)), 0.5 * world_size]
        launcher = "slurm" if slurm_job else "torchrun"
        assert answers["layout"] == [rank, world_size, world_size, launcher]
        assert answers["backend"] == "gloo"
        assert answers["timeout"] == 1860, "a minute more than the longest that a rank may take"
        assert answers["flight recorder"] == "2000", "it is on before the first group is made"
    assert not slurm_job or list((tmp_path / "meet" / "here").iterdir()) == []  # rank 0 has cleared its note away


def total(ranks: Ranks, value: float) -> float:
    return ranks.sum_(torch.tensor(value)).item()


def test_slurm_jobs_that_start_together_do_not_meet(tmp_path: Path) -> None:
    """Two jobs with one meeting place; a note of an earlier job with the number of one of them lies there too."""
    stale = tmp_path / meeting_name(slurm_environment(0, 2, "81"))
    stale.write_text("127.0.0.1 1")
    sums: dict[str, list[float]] = {}

    def start(job: str, value: float) -> None:
        sums[job] = run_ranks(2, total, value, slurm_job=job, meeting_place=tmp_path)

    threads = [threading.Thread(target=start, args=job) for job in (("81", 1.0), ("82", 10.0))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == {"81": [2.0, 2.0], "82": [20.0, 20.0]}
    assert list(tmp_path.iterdir()) == []


def break_down(ranks: Ranks) -> None:
    if ranks.rank == 1:
        raise ValueError("rank 1 is unwell")
    ranks.barrier()


def test_a_failing_rank_is_reported() -> None:
    with pytest.raises(AssertionError, match="rank 1 is unwell"):
        run_ranks(2, break_down)


def from_main(ranks: Ranks) -> dict[str, Any]:
    found = ranks.from_main(lambda: {"rank": ranks.rank, "numbers": torch.arange(1000), "text": "ü"})

    def refuse() -> int:
        raise UserError("no such file")

    with pytest.raises(UserError, match="no such file"):
        ranks.from_main(refuse)
    return found


def test_what_one_rank_has_read_all_have() -> None:
    for found in run_ranks(3, from_main):
        assert (found["rank"], found["text"]) == (0, "ü") and found["numbers"].equal(torch.arange(1000))
    alone = from_main(Ranks(Layout(), torch.device("cpu")))
    assert alone["rank"] == 0
