"""``--status`` and ``--retry``: what a folder and Slurm's queue say together, and what is queued again."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from engine.errors import UserError
from engine.run_folder.failure import Failure, write_failure
from engine.run_folder.paths import RunDir
from engine.run_folder.status import LOST_AFTER
from engine.run_folder.writer_lock import RunLock, Writer
from tools.submit import retry as retry_module
from tools.submit.__main__ import main
from tools.submit.folders import PLACE, Note, give_back, read_note, write_note, write_status
from tools.submit.overview import find_runs, look, slurm_queue, table
from tools.submit.retry import retry
from tools.submit.submission import Submitted

GONE: dict[str, tuple[str, str]] = {}
RUNS = {"7_3": ("RUNNING", "None")}
WAITS = {"7_3": ("PENDING", "Priority"), "7_4": ("RUNNING", "None")}


def make_run(
    root: Path, state: str, number: int = 1, job: str = "7_3", cluster: str = "slurm", **status: object
) -> RunDir:
    run = RunDir(root / f"experiment_{number:04d}")
    run.path.mkdir(parents=True)
    content = {"state": state, "epoch": 1.5, "step": 30, "best": {}, "updated": time.time(), **status}
    run.status.write_text(json.dumps(content))
    if job:
        (root / PLACE).mkdir(exist_ok=True)
        write_note(run, Note("classification", cluster, job, socket.gethostname(), "job.out", "abc", {}, ("a.b=1",)))
    return run


@pytest.mark.parametrize(
    ("written", "queue", "state", "why"),
    [
        ("queued", WAITS, "waiting", "Priority"),
        ("queued", RUNS, "starting", ""),
        ("queued", None, "waiting", "or cancelled: nobody here can tell"),
        ("queued", GONE, "lost", "its job was cancelled before it began"),
        ("running", RUNS, "running", ""),
        ("running", None, "running", ""),
        ("running", GONE, "lost", "its job ended without a word; see job.out"),
        ("running", WAITS, "waiting", "Priority"),
        ("interrupted", WAITS, "waiting", "Priority"),
        ("interrupted", RUNS, "interrupted", "its job ends, or goes on, in a moment"),
        ("interrupted", GONE, "interrupted", "its job was ended; --retry queues it again"),
        ("interrupted", None, "interrupted", ""),
        ("failed", GONE, "failed", "no FAILED.json says why"),
        ("finished", GONE, "finished", ""),
        ("finished", RUNS, "finished", ""),
    ],
)
def test_the_folder_and_the_queue_together_say_how_a_run_is_doing(tmp_path, written, queue, state, why):
    view = look(make_run(tmp_path, written), queue)
    assert (view.state, view.why, view.step, view.epoch) == (state, why, 30, 1.5)


def test_a_run_without_a_sign_of_life_is_lost_even_if_its_job_is_not(tmp_path):
    run = make_run(tmp_path, "running", updated=time.time() - LOST_AFTER - 1)
    assert look(run, None).why == "no sign of life for three minutes"
    view = look(run, RUNS)
    assert (view.state, view.alive, view.why) == ("lost", True, "no sign of life for three minutes, but job 7_3 runs")


def test_a_failure_says_why(tmp_path):
    run = make_run(tmp_path, "failed")
    write_failure(run.failed, Failure(1, "n1", 31, "rank 1 on n1: out of memory"))
    assert look(run, GONE).why == "rank 1 on n1: out of memory"


def test_a_run_that_nobody_submitted_is_known_by_its_folder_alone(tmp_path):
    view = look(make_run(tmp_path, "running", job=""), GONE)
    assert (view.state, view.note, view.alive) == ("running", None, None)


def test_a_job_that_began_and_left_nothing_is_followed_to_what_it_printed(tmp_path):
    run = make_run(tmp_path, "queued")
    (tmp_path / "job.out").write_text("Killed")
    note = read_note(run)
    write_note(run, Note(**{**vars(note), "log": str(tmp_path / "job.out")}))
    assert look(run, GONE).why == f"its job ended before it began; see {tmp_path}/job.out"


def test_a_templates_job_is_known_by_what_it_recorded(tmp_path):
    run = make_run(tmp_path, "interrupted", job="")
    run.environment.write_text(json.dumps({"slurm": {"job_id": "3"}, "restarts": [{"slurm": {"job_id": "5"}}]}))
    waits = look(run, {"5": ("PENDING", "BeginTime")})
    assert (waits.state, waits.why, waits.job, waits.alive) == ("waiting", "BeginTime", "5", True)
    assert "5" in table([waits]).splitlines()[1].split()
    assert retry([waits], {}) == ([], [])
    gone = look(run, GONE)
    assert (gone.state, gone.alive) == ("interrupted", None), "it may be somebody else's"
    assert retry([gone], {}) == ([], [gone])


def test_it_is_said_that_slurm_does_not_answer(tmp_path, monkeypatch, capsys):
    make_run(tmp_path, "queued")
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["--status", str(tmp_path)]) == 0
    assert "Slurm does not answer" in capsys.readouterr().err


def test_local_jobs_are_looked_for_where_they_were_started(tmp_path):
    run = make_run(tmp_path, "running", job=str(os.getpid()), cluster="local")
    assert (look(run, None).state, look(run, None).alive) == ("running", True)
    gone = make_run(tmp_path, "running", 2, job=str(2**22 + 1), cluster="local")
    assert (look(gone, None).state, look(gone, None).alive) == ("lost", False)


def test_a_damaged_note_is_no_note(tmp_path):
    run = make_run(tmp_path, "running")
    (tmp_path / PLACE / f"{run.name}.json").write_text('{"task": "classification"')
    assert read_note(run) is None


def test_the_table_has_a_line_a_run_and_counts_them(tmp_path, monkeypatch):
    runs = [make_run(tmp_path, "finished"), make_run(tmp_path, "queued", 2), make_run(tmp_path, "queued", 10, "7_4")]
    assert find_runs([tmp_path]) == runs
    assert find_runs([runs[2].path, runs[0].path, tmp_path]) == runs
    monkeypatch.chdir(tmp_path)
    text = table([look(run, WAITS) for run in runs]).splitlines()
    assert text[0].split() == ["experiment", "state", "step", "epoch", "job", "what", "why"]
    assert text[1].split() == ["experiment_0001", "finished", "30", "1.5", "7_3", "a.b=1"]
    assert text[2].split() == ["experiment_0002", "waiting", "30", "1.5", "7_3", "a.b=1", "Priority"]
    assert text[-1] == "1 finished, 1 waiting, 1 starting"
    monkeypatch.chdir(runs[0].path)
    assert table([look(runs[1], WAITS)]).splitlines()[1].split()[0] == str(runs[1].path)


def test_an_experiment_that_was_renamed_is_known(tmp_path):
    run = make_run(tmp_path, "finished")
    run.config.write_text("")
    renamed = run.path.rename(tmp_path / "the best")
    assert [found.path for found in find_runs([renamed])] == [renamed]


def test_a_place_without_experiments_is_refused(tmp_path):
    for place in (tmp_path, tmp_path / "experiment_0001"):
        with pytest.raises(UserError, match="no experiments there"):
            find_runs([place])


def test_without_slurm_nobody_knows_what_is_queued(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert slurm_queue() is None


# -- retry -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What is handed to the cluster, instead of doing so."""
    calls: list[tuple] = []

    def queue(task, runs, swept, cluster, resources, name):
        assert all(json.loads(run.status.read_text())["state"] == "queued" for run in runs)
        calls.append((task, [run.name for run in runs], swept, cluster, resources.gpus_per_node, resources.time))
        return [Submitted(run, read_note(run), "") for run in runs]

    monkeypatch.setattr(retry_module, "queue", queue)
    return calls


def test_only_what_has_stopped_unfinished_is_queued_again_and_as_one_array(tmp_path, queued):
    states = ["finished", "running", "failed", "interrupted", "queued", "lost"]
    runs = [make_run(tmp_path, state, number, f"7_{number}") for number, state in enumerate(states, 1)]
    queue = {"7_2": ("RUNNING", ""), "7_5": ("PENDING", "Priority")}
    stranger = make_run(tmp_path, "interrupted", 8, job="")
    other = make_run(tmp_path, "interrupted", 9, "9")
    note = read_note(other)
    write_note(other, Note(**{**vars(note), "resources": {"gpus_per_node": 4, "time": "60"}}))
    submitted, foreign = retry([look(run, queue) for run in [*runs, stranger, other]], {"time": "90"})
    assert queued == [
        (
            "classification",
            ["experiment_0003", "experiment_0004", "experiment_0006"],
            [("a.b=1",)] * 3,
            "slurm",
            1,
            "90",
        ),
        ("classification", ["experiment_0009"], [("a.b=1",)], "slurm", 4, "90"),
    ]
    assert [each.folder.name for each in submitted] == [f"experiment_000{number}" for number in (3, 4, 6, 9)]
    assert [view.folder for view in foreign] == [stranger]
    assert json.loads(runs[2].status.read_text())["step"] == 30, "how far it got is still known"


def test_a_local_run_is_not_retried_with_what_only_slurm_grants(tmp_path, queued):
    failed = make_run(tmp_path, "failed")
    local = make_run(tmp_path, "failed", 2, job=str(2**22 + 1), cluster="local")
    views = [look(run, GONE) for run in (failed, local)]
    with pytest.raises(UserError, match="--mem: --cluster local takes "):
        retry(views, {"mem": "1G"})
    assert queued == []
    assert len(retry(views, {"time": "90"})[0]) == 2


def test_what_is_refused_is_as_it_was(tmp_path, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise UserError("Slurm does not take the job")

    monkeypatch.setattr(retry_module, "queue", refuse)
    run = make_run(tmp_path, "failed")
    before = run.status.read_text()
    with pytest.raises(UserError, match="does not take"):
        retry([look(run, GONE)], {})
    assert run.status.read_text() == before


def test_a_run_whose_job_may_still_wait_is_not_queued_twice(tmp_path, queued):
    run = make_run(tmp_path, "interrupted")
    with pytest.raises(UserError, match=r"nobody here can tell whether .*/experiment_0001 still waits"):
        retry([look(run, None)], {})
    assert retry([look(run, WAITS)], {}) == ([], [])
    assert retry([look(run, RUNS)], {}) == ([], [])
    assert queued == []


def test_a_process_that_writes_in_the_folder_runs_whatever_has_become_of_its_job(tmp_path, queued):
    gone = str(2**22 + 1)
    run = make_run(tmp_path, "running", job=gone, cluster="local")
    lock = RunLock(run)
    for written in ("queued", "running", "interrupted", "failed"):
        write_status(run, written)
        view = look(run, None)
        assert (view.state, view.alive) == ("running", True), written
        assert f"process {os.getpid()} " in view.why
        assert retry([view], {}) == ([], [])
    lock.release()
    write_status(run, "running")
    assert look(run, None).state == "lost"
    run.lock.write_text(json.dumps({**asdict(Writer.this_process()), "born": "earlier"}))
    assert look(run, None).state == "lost", "its number is another process's now"
    assert queued == []


def test_a_folder_that_was_given_back_is_gone_and_a_status_keeps_what_is_known(tmp_path):
    run = make_run(tmp_path, "interrupted", best={"top1": 0.5})
    write_status(run, "queued")
    status = json.loads(run.status.read_text())
    assert (status["state"], status["step"], status["best"]) == ("queued", 30, {"top1": 0.5})
    give_back([run])
    assert not run.path.exists()
