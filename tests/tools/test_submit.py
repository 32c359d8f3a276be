"""Submitting to this machine: claimed folders, copied code, sweeps, what stops and goes on, and what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from submitit import JobEnvironment
from submitit.slurm.slurm import _make_sbatch_string
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.config.run import RunConfig
from engine.errors import UserError
from engine.run_folder.failure import read_failure
from engine.run_folder.paths import RunDir
from tests.classification.small import folder_data, write_config, write_images
from tests.detection import small as small_detection
from tests.detection.coco_files import write_split
from tests.distributed import ROOT, clean_environment, launch
from tools.submit import local_devices
from tools.submit.__main__ import main
from tools.submit.folders import read_note
from tools.submit.job import LOCAL_GPUS, Job, take_local_gpus
from tools.submit.resources import (
    Resources,
    check,
    describe_request,
    environment_place,
    parse_minutes,
    slurm_parameters,
)
from tools.submit.submission import queue, resolve, seeds_from
from tools.submit.sweep import combinations

LOCAL = ("--cluster", "local", "--gpus-per-node", "0")


def submit(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.submit", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=clean_environment(), capture_output=True, text=True, timeout=600, check=False
    )


def submit_config(config: Path, *arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return submit("--task", "classification", "--config", config, *arguments, cwd=cwd)


def state(run: Path) -> str:
    return json.loads((run / "status.json").read_text())["state"]


def wait_for(condition: Callable[[], object], what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def wait_until_gone(run: Path) -> None:
    """Until the local job has ended, so that nothing of it outlives the test."""
    note = read_note(RunDir(run))
    assert note is not None
    wait_for(lambda: not Path(f"/proc/{note.job}").exists(), f"{run} still runs: {note}")


def starts(run: Path) -> list[dict]:
    environment = json.loads((run / "environment.json").read_text())
    return [environment, *environment["restarts"]]


# -- on this machine -------------------------------------------------------------------------------------------------


def test_a_local_sweep_runs_each_combination_in_its_own_folder_from_a_copy_of_the_code(tmp_path):
    config = write_config(tmp_path, training={"steps": 2})
    sweep = ("--name", "try", "--sweep", "optimizer.lr=1e-4,3e-3", "experiment.tags=[mine]")
    done = submit_config(config, *LOCAL, *sweep, cwd=tmp_path.parent)
    runs = [tmp_path / "experiments" / f"experiment_000{number}" for number in (1, 2)]
    assert done.returncode == 0, done.stderr
    below = [f"{tmp_path.name}/experiments/{run.name}" for run in runs]
    assert all(f"\n{path}  job " in f"\n{done.stdout}" for path in below), done.stdout
    assert f"--status {' '.join(below)}\n" in done.stdout
    assert re.search(r"cancel: kill \d+ \d+\n", done.stdout)
    for run, lr in zip(runs, ("1e-4", "3e-3"), strict=True):
        wait_until_gone(run)
        note = read_note(RunDir(run))
        assert state(run) == "finished", Path(note.log).read_text()
        settings = yaml.safe_load((run / "config.yaml").read_text())
        assert settings["experiment"]["name"] == f"try optimizer.lr={lr}"
        assert settings["experiment"]["tags"] == ["mine", "sweep", f"optimizer.lr={lr}"]
        assert settings["optimizer"]["lr"] == float(lr)
        assert f"try optimizer.lr={lr}" in (run / "README.md").read_text()
        code = tmp_path / "experiments" / ".snapshots" / note.snapshot
        assert code.is_dir()
        assert f"code: {code}\n" in Path(note.log).read_text()
        assert f"--experiment {tmp_path.name}/experiments/{run.name}\n" in Path(note.log).read_text()
        events = EventAccumulator(str(RunDir(run).tensorboard)).Reload()
        hparams = events.PluginTagToContent("hparams")
        assert any(b"optimizer.lr" in content for content in hparams.values())
        below = {path.parent for path in run.rglob("*tfevents*")}
        assert below == {run / f"try optimizer.lr={lr}"}, "one run an experiment, by its name"
        assert "train/loss" in events.Tags()["scalars"]


def test_seeds_are_a_sweep_from_the_configured_one_on(tmp_path):
    config = write_config(tmp_path)
    others, sweep = seeds_from("classification", config, ["experiment.seed=7", "optimizer.lr=1e-3"], 3)
    assert (others, sweep) == (["optimizer.lr=1e-3"], "experiment.seed=7,8,9")
    runs = resolve("classification", config, others, ["training.steps=2,3", sweep], "")
    assert [(run.training.steps, run.experiment.seed) for run in runs] == [(n, s) for n in (2, 3) for s in (7, 8, 9)]
    assert seeds_from("classification", config, [], 2)[1] == "experiment.seed=0,1"


@pytest.mark.parametrize("more", [["--seeds", "0"], ["--seeds", "2", "--sweep", "experiment.seed=1,2"]])
def test_seeds_are_at_least_one_and_swept_once(tmp_path, capsys, more):
    assert main(["--task", "classification", "--config", str(write_config(tmp_path)), *LOCAL, *more]) == 2
    assert "--seeds" in capsys.readouterr().err
    assert not (tmp_path / "experiments").exists()


def test_what_a_quick_check_refuses_is_not_queued(tmp_path, capsys):
    weights = tmp_path / "weights"
    weights.mkdir()
    command = ["--task", "classification", "--config", str(write_config(tmp_path)), *LOCAL]
    assert main([*command, f"finetune.weights={weights}"]) == 2
    assert "is a folder, but no experiment with a checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "experiments").exists()


def test_jobs_beside_others_have_gpus_behind_theirs(monkeypatch):
    monkeypatch.setattr(local_devices, "seen_gpus", lambda: ["0", "1", "2"])
    assert local_devices.divide_gpus(Resources(gpus_per_node=1), 1, first=2) == [["2"]]


def test_a_local_job_of_two_ranks_goes_on_after_a_warning_ends_when_told_to_and_is_retried(tmp_path):
    config = write_config(tmp_path, training={"steps": 150}, evaluation={"every_epochs": 9, "batch_size": 90})
    assert submit_config(config, *LOCAL, "--tasks-per-node", 2).returncode == 0
    run = tmp_path / "experiments" / "experiment_0001"
    job = int(read_note(RunDir(run)).job)

    def records() -> int:
        return len((run / "metrics.jsonl").read_text().splitlines()) if (run / "metrics.jsonl").exists() else 0

    def ranks() -> list[int]:
        return [device["pid"] for device in starts(run)[-1]["devices"]]

    wait_for(lambda: records() > 1, "the first records")
    first = ranks()
    assert {os.getsid(job), os.getpgid(job)}.isdisjoint({os.getsid(0), os.getpgid(0)}), "Ctrl-C here ends it there"
    os.kill(first[1], signal.SIGUSR1)  # one of them is enough
    wait_for(lambda: len(starts(run)) == 2 and state(run) == "running", "the second start")
    assert set(ranks()).isdisjoint(first)
    before = records()
    wait_for(lambda: records() > before, "records of the second start")
    os.kill(job, signal.SIGTERM)
    wait_until_gone(run)
    assert state(run) == "interrupted"
    assert "interrupted" in submit("--status", run).stdout
    done = submit("--retry", tmp_path / "experiments")
    assert done.returncode == 0, done.stderr
    wait_until_gone(run)
    assert state(run) == "finished", Path(read_note(RunDir(run)).log).read_text()
    assert len(starts(run)) == 3
    assert all(len(start["devices"]) == 2 for start in starts(run))
    steps = [
        r["step"] for r in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if r["split"] == "train"
    ]
    assert steps == sorted(set(steps))
    assert "nothing to retry" in submit("--retry", run).stdout


def test_a_controller_that_is_killed_takes_its_rank_with_it(tmp_path):
    config = write_config(tmp_path, training={"steps": 100_000}, logging={"every_steps": 1})
    assert submit_config(config, *LOCAL).returncode == 0
    run = tmp_path / "experiments" / "experiment_0001"
    controller = int(read_note(RunDir(run)).job)
    wait_for(lambda: (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_text(), "the first record")
    (rank,) = (device["pid"] for device in starts(run)[-1]["devices"])
    os.kill(controller, signal.SIGKILL)
    try:
        wait_for(lambda: not Path(f"/proc/{rank}").exists(), "it trains on, and nobody sees it", 30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(rank, signal.SIGKILL)
    failure = read_failure(RunDir(run).failed)
    assert failure is not None and failure.retry
    assert f"the launcher (pid {controller}) of rank 0" in failure.reason
    assert state(run) == "failed"


def test_debug_runs_in_this_process_and_exits_with_the_runs_code(tmp_path):
    config = write_config(tmp_path, training={"steps": 2})
    command = [sys.executable, "-m", "tools.submit", "--task", "classification", "--config", str(config)]
    (ended,) = launch(1, [*command, "--cluster", "debug"])
    assert ended.returncode == 0, ended.output
    run = tmp_path / "experiments" / "experiment_0001"
    assert state(run) == "finished"
    assert f"--experiment {run}\n" in ended.output, "a path to be typed where the command was typed"


# -- refused before anything is queued -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optimizer.lrr=1"], r"command line: optimizer.lrr: unknown key; did you mean 'lr'\?"),
        (["--sweep", "optimiser.lr=1,2"], "command line: optimiser: unknown key; did you mean 'optimizer'"),
        (["--sweep", "optimizer.lr=1e-3,fast"], "command line: optimizer.lr: must be a number"),
        (["--sweep", "experiment.root=a,b"], "experiment.root: the runs of a sweep lie in one folder"),
        (["finetune.weights=nowhere.pt"], "finetune.weights: .*nowhere.pt does not exist; fetch it first"),
        (["--time", "soon"], "--time: 'soon' is no time"),
        (["--nodes", "2"], "--nodes 2: --cluster local has one"),
        (["--tasks-per-node", "0"], "--tasks-per-node: must be 1 or more, not 0"),
        (["--tasks-per-node", "1000"], r"training.global_batch_size: \d+ cannot be divided into 1000 ranks"),
        (["--time", "2"], "--time: 2 is too short: a job is told to save 120 s before"),
        (["--sweep", "training.epochs=1,2", "training.epochs=3"], "--sweep: training.epochs: swept, and given a"),
    ],
)
def test_what_is_wrong_is_refused_and_leaves_no_folder(tmp_path, capsys, arguments, message):
    config = write_config(tmp_path)
    assert main(["--task", "classification", "--config", str(config), *LOCAL, *arguments]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert not list((tmp_path / "experiments").glob("experiment_*"))
    assert not list((tmp_path / "experiments").glob(".submitit/*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--slurm", "array=0-3"], "--array is what tools.submit itself decides"),
        (["--slurm", "wrap=ls"], "--wrap is what tools.submit itself decides"),
        (["--slurm", "partition=fast"], "use --partition"),
        (["--slurm", "cpus_per_task=4"], "use --cpus-per-task"),
        (["--slurm", "comment=a\nb"], "characters that no option takes"),
        (["--conf", "run.yaml"], "--task and --config are needed|unrecognized arguments: --conf"),
        (["--retry", "experiments", "training.epochs=3"], "--retry does without training.epochs=3"),
        (["--retry", "experiments", "--cluster", "debug"], "--retry does without --cluster"),
        (["--task", "classification", "--config", "a.yaml", "--status"], "--status does without --task, --config"),
        (["--status", "--time", "60"], "--status does without --time"),
    ],
)
def test_options_that_do_not_go_together_are_refused(capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_missing_images_are_refused(tmp_path, capsys):
    write_images(tmp_path / "images" / "train", {"a": 1, "b": 1})
    config = write_config(tmp_path, data=folder_data(tmp_path / "images"))
    assert main(["--task", "classification", "--config", str(config), *LOCAL]) == 2
    assert "has no folder val or validation; " in capsys.readouterr().err


def test_weights_that_timm_would_have_to_fetch_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    config = write_config(tmp_path, model={"name": "timm/tf_efficientnet_lite0"}, finetune={"weights": "timm"})
    assert main(["--task", "classification", "--config", str(config), *LOCAL]) == 2
    assert "the weights of timm/tf_efficientnet_lite0 (timm/tf_efficientnet_lite0.in1k) are not in the cache" in (
        capsys.readouterr().err
    )


def test_annotations_and_weights_of_a_detector_are_looked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    write_split(tmp_path, "train", [])
    files = {split: {"images": "train", "annotations": f"{split}.json"} for split in ("train", "val")}
    data = {"source": "coco", "root": str(tmp_path), **files}
    changes = {"detection": {"backbone": "resnet50_a"}, "finetune": {"weights": "timm"}}
    config = small_detection.write_config(tmp_path, data=data, **changes)
    command = ["--task", "detection", "--config", str(config), *LOCAL]
    assert main(command) == 2
    assert re.search(r"data.val.annotations: there is no file .*/val.json", capsys.readouterr().err)
    assert main([*command, "data.val.annotations=train.json"]) == 2
    assert "finetune.weights: the weights of timm/resnet50 " in capsys.readouterr().err


def test_without_slurm_it_says_what_else_works(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["--task", "classification", "--config", str(write_config(tmp_path))]) == 2
    assert "there is no sbatch here; submit on a login node, or use --cluster local" in capsys.readouterr().err
    assert not list((tmp_path / "experiments").glob("experiment_*"))


def test_an_unknown_task_names_those_that_there_are(tmp_path, capsys):
    assert main(["--task", "segmentation", "--config", str(write_config(tmp_path))]) == 2
    assert "there are classification, detection" in capsys.readouterr().err


def test_a_sweep_cannot_be_debugged(tmp_path, capsys):
    arguments = ["--task", "classification", "--config", str(write_config(tmp_path)), "--cluster", "debug"]
    assert main([*arguments, "--sweep", "optimizer.lr=1,2"]) == 2
    assert "leave --sweep and --seeds away" in capsys.readouterr().err


@pytest.mark.parametrize("cluster", ["local", "debug"])
@pytest.mark.parametrize(
    "option", [("--partition", "fast"), ("--mem", "1G"), ("--exclude-failed",), ("--slurm", "comment=mine")], ids=str
)
def test_what_only_slurm_grants_is_refused_elsewhere(tmp_path, capsys, cluster, option):
    config = str(write_config(tmp_path))
    assert main(["--task", "classification", "--config", config, "--cluster", cluster, *option]) == 2
    assert f"error: {option[0]}: --cluster {cluster} takes " in capsys.readouterr().err
    assert not list((tmp_path / "experiments").glob("experiment_*"))


def test_nothing_heavy_is_imported_to_submit(tmp_path):
    """A login node's user need not wait, and nothing there touches a GPU."""
    code = (
        "import sys; from pathlib import Path; from tools.submit.submission import resolve; import tools.submit.retry\n"
        f"resolve('classification', Path({str(write_config(tmp_path))!r}), [], ['optimizer.lr=1,2'], '')\n"
        "sys.exit(bool({'torch', 'timm', 'torchvision'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=clean_environment(), check=False).returncode == 0


def test_a_run_that_fails_before_it_can_say_so_is_noted(tmp_path):
    run = RunDir(tmp_path)
    run.status.write_text('{"state": "queued", "epoch": 0.0, "step": 0, "best": {}, "updated": 0}')
    Job("classification", run.config, tmp_path)._note_failure(2)
    assert state(tmp_path) == "failed"
    assert "ended with code 2 before the first step" in run.failed.read_text()


# -- the parts -------------------------------------------------------------------------------------------------------


def test_times_are_read_as_slurm_reads_them():
    minutes = {"90": 90, "1:30": 2, "12:00:00": 720, "0:0:61": 2, "2-0": 2880, "1-12:30": 2190, "1-0:0:1": 1441}
    assert {text: parse_minutes(text) for text in minutes} == minutes
    for text in ("", "0", "1h", "1:2:3:4", "-5"):
        with pytest.raises(UserError, match="is no time"):
            parse_minutes(text)


@pytest.mark.parametrize("name", ["100%j", "a\\b"])
def test_a_place_whose_name_a_job_would_change_is_refused(tmp_path, name):
    run = RunDir(tmp_path / name / "experiment_0001")
    with pytest.raises(UserError, match=r"^experiment\.root: .*: [%\\] has a meaning in the names of a job's files"):
        queue("classification", [run], [()], "slurm", Resources(), "")


def test_sweeps_are_combined_in_the_order_of_the_command_line():
    assert combinations([], RunConfig) == [()]
    assert combinations(["a.b=1,2", "c=x,[1, 2],'p,q'"], RunConfig) == [
        ("a.b=1", "c=x"),
        ("a.b=1", "c=[1, 2]"),
        ("a.b=1", "c='p,q'"),
        ("a.b=2", "c=x"),
        ("a.b=2", "c=[1, 2]"),
        ("a.b=2", "c='p,q'"),
    ]


@pytest.mark.parametrize(
    "sweeps", [["a"], ["=1"], ["a="], ["a=1,,2"], ["a=[1"], ["a=1],[2"], ["a=1,1"], ["a=1", "a=2"]]
)
def test_a_sweep_that_makes_no_sense_is_refused(sweeps):
    with pytest.raises(UserError, match="--sweep: "):
        combinations(sweeps, RunConfig)


def test_slurm_is_asked_for_what_was_asked_for_and_nothing_else(tmp_path):
    def lines(resources: Resources) -> list[str]:
        text = _make_sbatch_string(
            command="python", folder=tmp_path, **slurm_parameters(resources, "my\nname", tmp_path, tmp_path)
        )
        return text.splitlines()

    plain = lines(Resources(gpus_per_node=4))
    assert {"#SBATCH --gpus-per-node=4", "#SBATCH --ntasks-per-node=4", "#SBATCH --requeue"} <= set(plain)
    assert {"#SBATCH --signal=USR2@120", "#SBATCH --job-name='my name'"} <= set(plain)
    for absent in ("time", "partition", "account", "mem", "cpus-per-task", "wckey"):
        assert not [line for line in plain if line.startswith(f"#SBATCH --{absent}")]
    full = lines(Resources(2, 0, 3, 7, "8G", "1-00", "fast", "us", slurm={"reservation": "course"}))
    for option in ("time=1440", "mem=8G", "ntasks-per-node=3", "cpus-per-task=7", "partition=fast", "account=us"):
        assert f"#SBATCH --{option}" in full
    assert "#SBATCH --reservation=course" in full
    assert any("export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK" in line for line in full)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str | None], None]:
    """Has torch see that many GPUs, with CUDA_VISIBLE_DEVICES as given."""

    def have(count: int, variable: str | None = None) -> None:
        monkeypatch.setattr("torch.cuda.device_count", lambda: count)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if variable is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)

    return have


@pytest.mark.parametrize(
    ("count", "variable", "seen"),
    [
        (0, None, []),
        (2, None, ["0", "1"]),
        (0, "", []),
        (2, "4,5", ["4", "5"]),
        (1, "4,9", ["4"]),
        (0, "0", []),
        (1, "GPU-5f,GPU-no", ["GPU-5f"]),
        (1, "MIG-a,MIG-b", ["MIG-a", "MIG-b"]),
    ],
)
def test_a_local_job_may_have_the_gpus_that_torch_sees_in_this_shell(gpus, count, variable, seen):
    gpus(count, variable)
    assert local_devices.seen_gpus() == seen
    assert local_devices.default_gpus("auto") == local_devices.default_gpus("cuda") == min(1, len(seen))
    assert local_devices.default_gpus("cpu") == 0


def test_jobs_that_start_together_take_gpus_of_their_own_as_long_as_there_are_any(gpus):
    gpus(3, "4,5,6")
    assert local_devices.divide_gpus(Resources(gpus_per_node=2), 2) == [["4", "5"], ["6", "4"]]
    assert local_devices.divide_gpus(Resources(gpus_per_node=0), 2) == [[], []]
    with pytest.raises(UserError, match=r"--gpus-per-node 4: torch sees 3 GPU\(s\) .* is '4,5,6'; ask for at most 3"):
        local_devices.divide_gpus(Resources(gpus_per_node=4), 1)
    gpus(0)
    with pytest.raises(UserError, match=r"torch sees 0 GPU\(s\) on this machine; leave it away to train on the CPU"):
        local_devices.divide_gpus(Resources(), 1)


@pytest.mark.parametrize(
    ("count", "arguments", "listed", "said"),
    [
        (2, [], "0", "GPU 0 of this machine"),
        (2, ["--gpus-per-node", "2"], "0,1", "GPU 0, 1 of this machine, a process each"),
        (2, ["--gpus-per-node", "0", "--tasks-per-node", "4"], "", "CPU, 4 processes"),
        (2, ["distributed.device=cpu"], "", "CPU, 1 process"),
        (0, ["--tasks-per-node", "2"], "", "CPU, 2 processes"),
    ],
)
def test_a_local_job_says_and_sees_what_it_trains_on(
    tmp_path, capsys, monkeypatch, gpus, count, arguments, listed, said
):
    """The job's process itself prints what it was told, in place of training."""
    gpus(count)
    show = "import os, sys; print('told', os.environ[sys.argv[1]])"
    command = shlex.join([sys.executable, "-c", show, LOCAL_GPUS])
    monkeypatch.setattr("tools.submit.executors.launcher", lambda code: command)
    config = write_config(tmp_path, distributed={"device": "auto"})
    assert main(["--task", "classification", "--config", str(config), "--cluster", "local", *arguments]) == 0
    assert f"  devices: {said}\n" in capsys.readouterr().out
    run = tmp_path / "experiments" / "experiment_0001"
    wait_until_gone(run)
    assert Path(read_note(RunDir(run)).log).read_text() == f"told {listed}\n"


@pytest.mark.parametrize("listed", ["", "MIG-a,MIG-b"])
def test_a_local_jobs_process_has_the_gpus_of_its_submission(monkeypatch, tmp_path, listed):
    names = {"JOB_ID": "7", "NTASKS": "1", "GLOBALID": "0", "LOCALID": "0", "NODEID": "0", "JOB_NUM_NODES": "1"}
    for name, value in names.items():
        monkeypatch.setenv(f"SUBMITIT_LOCAL_{name}", value)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "submitit's")
    monkeypatch.setenv(LOCAL_GPUS, listed)
    take_local_gpus(JobEnvironment())
    assert os.environ["CUDA_VISIBLE_DEVICES"] == listed


def test_a_job_of_slurm_says_what_it_gets():
    assert describe_request(Resources()) == "1 GPU on 1 node"
    assert describe_request(Resources(2, 4)) == "4 GPUs on each of 2 nodes"
    assert describe_request(Resources(gpus_per_node=0, tasks_per_node=4, slurm={"gres": "gpu:4"})) == "4 GPUs on 1 node"
    assert describe_request(Resources(gpus_per_node=0, tasks_per_node=4)) == "CPUs of 1 node, 4 processes on each"


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        (
            Resources(gpus_per_node=4, tasks_per_node=2),
            "2 process(es) but 4 GPU(s) on each node, and every GPU takes one",
        ),
        (Resources(cpus_per_task=0), "--cpus-per-task: must be 1 or more, not 0"),
        (Resources(array_parallelism=0), "--array-parallelism: must be 1 or more, not 0"),
        (Resources(gpus_per_node=0, slurm={"gres": "gpu:a100:4"}), "1 process(es) but 4 GPU(s) on each node"),
        (
            Resources(slurm={"gres": "gpu:4"}),
            "use --gpus-per-node 4; where the cluster takes only --gres: --gpus-per-n",
        ),
    ],
)
def test_numbers_are_large_enough_and_every_gpu_takes_one_process(resources, words):
    with pytest.raises(UserError) as caught:
        check(resources)
    assert words in str(caught.value)


def test_gpus_by_gres_are_all_that_sbatch_is_asked_for(tmp_path):
    resources = check(Resources(gpus_per_node=0, tasks_per_node=4, slurm={"gres": "gpu:4"}))
    script = _make_sbatch_string(
        command="python", folder=tmp_path, **slurm_parameters(resources, "x", tmp_path, tmp_path)
    )
    assert "#SBATCH --gres=gpu:4\n" in script
    assert "--gpus-per-node" not in script


def test_the_environment_that_a_variable_names_is_looked_for(tmp_path):
    (tmp_path / "my env" / "bin").mkdir(parents=True)
    (tmp_path / "my env" / "bin" / "activate").write_text("")
    (tmp_path / "modules.sh").write_text("")
    assert environment_place({}) == ""
    for name in ("my env", "modules.sh"):
        assert environment_place({"SWIN_ENV": f"{tmp_path}/{name}"}) == f"{tmp_path}/{name}"
    with pytest.raises(UserError, match="neither a virtual environment nor a file to source"):
        environment_place({"SWIN_ENV": f"{tmp_path}/nowhere"})
