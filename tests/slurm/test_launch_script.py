"""slurm/launch.sh with stand-ins for srun and scontrol, for what no Slurm on one machine can show, such as GPUs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.run_folder.failure import Failure, write_failure
from tests.distributed import ROOT, clean_environment
from tests.slurm.jobs import copy_code
from tests.slurm.standins import StandIns


class Launch(StandIns):
    """A template's job, without a queue."""

    def __init__(self, record: Path, code: Path) -> None:
        super().__init__(record)
        self.code = code

    def __call__(self, *arguments: str, module: str = "classification.train", **variables: str) -> tuple[int, str]:
        """Exit code and output; ``variables`` are Slurm's and the stand-ins'."""
        script = str(self.code / "slurm" / "launch.sh")
        own = {"SWIN_CODE": str(self.code), "SWIN_ENV": sys.prefix}
        return self.run(["bash", script, module, "--config", "default.yaml", "--", *arguments], {**own, **variables})


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_code(tmp_path_factory.mktemp("code"))


@pytest.fixture
def launch(tmp_path: Path, code: Path) -> Launch:
    return Launch(tmp_path, code)


def test_arguments_pass_unchanged_to_each_task(launch: Launch) -> None:
    arguments = ["--config", "a b.yaml", "experiment.notes=it's $HOME; `x` *", "data.labels=[a, b]"]
    code, output = launch(*arguments, SLURM_CPUS_PER_TASK="6")
    assert code == 0, output
    assert launch.arguments == [
        "--kill-on-bad-exit=1",
        "--wait=60",
        "python",
        "-m",
        "classification.train",
        *arguments,
    ]
    assert launch.environment["SRUN_CPUS_PER_TASK"] == "6"
    assert launch.environment["PYTHONUNBUFFERED"] == "1"


@pytest.mark.parametrize(
    ("script", "known", "cure"),
    [
        ("launch.sh", {}, "no Slurm job: submit this with sbatch, such as: sbatch slurm/"),
        ("launch.sh", {"SLURM_JOB_ID": "7"}, "SLURM_SUBMIT_DIR is not set, which sbatch does: submit this, such as"),
        ("launch.sh", {"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": "."}, "MODULE is missing"),
        ("train_clf_ddp.sbatch", {}, "no Slurm job: submit this with sbatch, such as: sbatch slurm/"),
    ],
)
def test_what_is_started_by_hand_says_how_to_start_it(script: str, known: dict[str, str], cure: str) -> None:
    command = ["bash", f"slurm/{script}"]
    done = subprocess.run(
        command, cwd=ROOT, env=clean_environment(known), capture_output=True, text=True, timeout=600, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and cure in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["--config", "default.yaml"]),
        (["data.root=x"], ["--config", "default.yaml", "data.root=x"]),
        (["--resume", "auto"], ["--config", "default.yaml", "--resume", "auto"]),
        (["--resume", "somewhere"], ["--resume", "somewhere"]),
        (["a=1", "--config=b.yaml"], ["a=1", "--config=b.yaml"]),
    ],
)
def test_the_templates_configuration_counts_unless_another_is_named(
    launch: Launch, arguments: list[str], expected: list[str]
) -> None:
    assert launch(*arguments)[0] == 0
    assert launch.arguments[launch.arguments.index("classification.train") + 1 :] == expected


def test_tasks_run_the_code_and_configurations_of_the_first_start(launch: Launch, tmp_path: Path) -> None:
    code = copy_code(tmp_path / "edited")
    launch = Launch(tmp_path, code)
    config = code / "configs" / "classification" / "quickstart.yaml"
    for restarts in ("0", "1"):
        assert launch("--config", str(config), SLURM_RESTART_COUNT=restarts, STATUS="75")[0] == -signal.SIGTERM
        frozen = Path(launch.environment["PYTHONPATH"].split(os.pathsep)[0])
        assert frozen.parent == tmp_path / "experiments" / ".snapshots"
        assert launch.arguments[-1] == str(frozen / "configs" / "classification" / "quickstart.yaml")
        assert Path(launch.arguments[-1]).read_text() == (ROOT / config.relative_to(code)).read_text()
        config.write_text("edited")
    launch("--config", str(config), SLURM_JOB_ID="8")
    assert Path(launch.arguments[-1]).read_text() == "edited"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"SLURM_GPUS_PER_NODE": "a100:4", "SLURM_NTASKS_PER_NODE": "1"},
            '1 task(s) but 4 GPU(s) on each node, and every GPU takes one task: change the line "#SBATCH '
            '--ntasks-per-node=1" to 4, or "#SBATCH --gpus-per-node=a100:4" to 1',
        ),
        ({"SLURM_GPUS_PER_NODE": "1", "SLURM_NTASKS": "2"}, "2 task(s) but 1 GPU(s) on each node"),
        ({"SLURM_NTASKS": "3", "SLURM_JOB_NUM_NODES": "2"}, "3 task(s) on 2 node(s): every node takes as many"),
        ({"SLURM_GPUS_ON_NODE": "4", "SLURM_NTASKS": "1"}, "to 4, or ask for 1 GPU(s)"),  # --gres=gpu:4
        ({"SLURM_GPUS_ON_NODE": "4", "SLURM_GPUS_PER_TASK": "4"}, 'change the line "#SBATCH --gpus-per-task=4" to 1'),
        ({"SWIN_ENV": "/nowhere"}, "SWIN_ENV: /nowhere is neither a virtual environment nor a file to source"),
        ({"SWIN_CODE": "/tmp"}, "/tmp is no clone of this suite"),
        ({"SLURM_JOB_ID": ""}, "submit this with sbatch"),
    ],
)
def test_what_cannot_work_is_refused_with_the_line_to_change(
    launch: Launch, variables: dict[str, str], message: str
) -> None:
    code, output = launch(**variables)
    assert code == 2
    assert output.startswith("error: ")
    assert message in output
    assert not (launch.record / "arguments").exists()


@pytest.mark.parametrize(
    "text",
    ["[ -d /nowhere ] && export X=1", "module load nothing; echo loaded", "echo $NOT_SET; set -e", "set -eu; true"],
)
def test_a_file_is_sourced_as_a_login_shell_does_it(launch: Launch, text: str) -> None:
    (launch.record / "cluster.sh").write_text(f"export FROM_FILE=here\nPATH={sys.prefix}/bin:$PATH\n{text}\n")
    code, output = launch(SWIN_ENV=str(launch.record / "cluster.sh"))
    assert code == 0, output
    assert launch.environment["FROM_FILE"] == "here"
    assert ("module: command not found" in output, "loaded" in output) == (("module" in text,) * 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exit 0", "error: SWIN_ENV: {file} ends the shell that sources it"),
        ("PATH={folder}:/usr/bin:/bin", "error: {folder}/python does not start, or"),
    ],
)
def test_a_file_that_sets_up_no_environment_is_named(launch: Launch, text: str, message: str) -> None:
    names = {"file": launch.record / "cluster.sh", "folder": launch.record}
    (launch.record / "python").write_text("#!/bin/sh\nexit 1\n")
    (launch.record / "python").chmod(0o755)
    names["file"].write_text(text.format(**names))
    code, output = launch(SWIN_ENV=str(names["file"]))
    assert code == 2
    assert message.format(**names) in output
    assert str(names["file"]) in output
    assert not (launch.record / "arguments").exists()


def test_gpus_with_as_many_tasks_are_fine(launch: Launch) -> None:
    eight = {"SLURM_GPUS_PER_NODE": "8", "SLURM_NTASKS_PER_NODE": "8", "SLURM_NTASKS": "16"}
    assert launch(**eight, SLURM_JOB_NUM_NODES="2")[0] == 0
    assert launch.environment["SLURM_GPUS_PER_NODE"] == "8"
    code, output = launch(**eight | {"SLURM_NTASKS": "8"}, SLURM_GPUS_ON_NODE="16")
    assert (code, output.count("note: the job holds 16 GPU(s) on this node and uses 8")) == (0, 1), output


def test_srun_takes_all_gpus_of_a_job_that_asked_for_them_otherwise(launch: Launch) -> None:
    """sbatch --gres=gpu:4 over a template that asks for eight a node: srun would ask for eight of the job's four."""
    four = {"SLURM_NTASKS_PER_NODE": "4", "SLURM_NTASKS": "4", "SLURM_GPUS_ON_NODE": "4"}
    code, output = launch(**four, SLURM_GPUS_PER_NODE="8")
    assert code == 0, output
    assert "SLURM_GPUS_PER_NODE" not in launch.environment


@pytest.mark.parametrize(
    ("status", "variables", "requeued"),
    [
        ("0", {}, ""),
        ("1", {}, ""),
        ("2", {}, ""),
        ("75", {}, "requeue 7"),
        ("75", {"STATE": "CANCELLED"}, ""),
        ("75", {"STATE": "COMPLETING Reason=None"}, ""),
        ("75", {"STATE": "COMPLETING Reason=TimeLimit"}, "requeue 7"),
        ("75", {"STATE": "PENDING"}, ""),
        ("75", {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2"}, "requeue 5_2"),
        ("75", {"module": "classification.evaluate"}, ""),
        ("137", {}, "requeue 7"),
        ("143", {}, ""),  # another task has failed at its start, and srun ended this one
        ("143", {"PREEMPTED": "2026-01-01T00:00:00"}, "requeue 7"),
    ],
)
def test_what_is_to_go_on_is_requeued(launch: Launch, status: str, variables: dict[str, str], requeued: str) -> None:
    code, output = launch(STATUS=status, **variables)
    assert code == (-signal.SIGTERM if requeued else int(status)), output
    assert launch.requeued == requeued


def test_a_death_by_signal_is_explained_in_the_runs_folder(launch: Launch, tmp_path: Path) -> None:
    launch(STATUS="139", FOLDER=str(tmp_path))
    assert json.loads((tmp_path / "FAILED.json").read_text())["wait_status"].startswith("SIGSEGV: a crash in compiled")
    assert launch.requeued == "requeue 7"


@pytest.mark.parametrize("status", [1, 137])
@pytest.mark.parametrize("retry", [True, False])
def test_only_what_may_well_succeed_is_tried_again(launch: Launch, tmp_path: Path, retry: bool, status: int) -> None:
    write_failure(tmp_path / "FAILED.json", Failure(1, "n1", 7, "rank 1 vanished", retry=retry, time=time.time() + 60))
    code, output = launch(STATUS=str(status), FOLDER=str(tmp_path))
    assert code == (-signal.SIGTERM if retry else 1), output  # srun's own is that of a rank it killed for being slow
    assert launch.requeued == ("requeue 7" if retry else "")


@pytest.mark.parametrize(
    ("nodes", "wanted", "updated", "message"),
    [
        ("n0|idle| n1|mix| n2|idle|", "1", "update JobId=7 ExcNodeList=n1", "node n1 is excluded from the job's next"),
        (
            "n0|idle| n1|mix| n2|down*|",
            "1",
            "",
            "node n1 is not excluded: that would leave 1 node(s) to a job that nee",
        ),
        ("n0|idle| n1|mix| n2|idle|", "0", "", "requeueing, to go on where it was saved last; rank 1 on host vanished"),
    ],
)
def test_the_node_that_failed_is_excluded_if_that_is_wanted_and_enough_are_left(
    launch: Launch, tmp_path: Path, nodes: str, wanted: str, updated: str, message: str
) -> None:
    (tmp_path / "environment.json").write_text(json.dumps({"devices": [{"rank": 1, "node": "n1"}]}))
    failure = Failure(1, "host", 7, "rank 1 on host vanished", retry=True, time=time.time() + 60)
    write_failure(tmp_path / "FAILED.json", failure)
    output = launch(STATUS="1", FOLDER=str(tmp_path), NODES=nodes, SWIN_EXCLUDE_FAILED=wanted)[1]
    assert launch.requeued == "requeue 7"
    assert launch.updated == updated
    assert message in output


def test_no_node_is_excluded_for_a_failure_that_may_be_anybodys_fault(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text(json.dumps({"devices": [{"rank": 1, "node": "n1"}]}))
    failure = Failure(None, "host", 7, "all ranks hang at step 7", retry=True, time=time.time() + 60)
    write_failure(tmp_path / "FAILED.json", failure)
    output = launch(STATUS="1", FOLDER=str(tmp_path), NODES="n0|idle| n1|mix| n2|idle|", SWIN_EXCLUDE_FAILED="1")[1]
    assert (launch.requeued, launch.updated) == ("requeue 7", "")
    assert "no node is excluded: it is not known whose fault it was" in output


def test_a_job_that_never_begins_to_train_is_requeued_twice(launch: Launch, tmp_path: Path) -> None:
    codes = [launch(STATUS="75", SLURM_RESTART_COUNT=str(number))[0] for number in range(3)]
    assert codes == [-signal.SIGTERM, -signal.SIGTERM, 1]
    assert launch.requeued == ""
    launch(STATUS="75", FOLDER=str(tmp_path), SLURM_RESTART_COUNT="3")
    assert launch.requeued == "requeue 7"
    launch(STATUS="75", SLURM_RESTART_COUNT="4")
    assert launch.requeued == "requeue 7", "the count began anew"


def test_what_a_job_leaves_for_its_restarts_is_removed_with_its_end(launch: Launch, tmp_path: Path) -> None:
    def left() -> list[str]:
        return sorted(path.name for path in (tmp_path / "experiments" / ".snapshots").glob("job_*"))

    launch(STATUS="75")
    assert left() == ["job_cluster_7", "job_cluster_7.idle"]
    launch(STATUS="143", STATE="PENDING", SLURM_RESTART_COUNT="1")
    assert left(), "Slurm starts it again"
    launch(STATUS="0", FOLDER=str(tmp_path), SLURM_RESTART_COUNT="2")
    assert left() == []


@pytest.mark.parametrize("template", sorted(path.stem for path in (ROOT / "slurm").glob("*.sbatch")))
def test_a_template_that_is_submitted_elsewhere_says_so(launch: Launch, template: str) -> None:
    code, output = launch.run(["bash", str(ROOT / "slurm" / f"{template}.sbatch")], {"SWIN_CODE": "/nope"})
    assert code == 2
    assert output == "error: no /nope/slurm/launch.sh: call sbatch in the clone, or set SWIN_CODE to its folder\n"


@pytest.mark.parametrize("template", sorted(path.name for path in (ROOT / "slurm").glob("*.sbatch")))
def test_templates_ask_for_what_the_launch_script_needs(template: str) -> None:
    path = ROOT / "slurm" / template
    lines = path.read_text().splitlines()
    options = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]
    assert {"--requeue", "--open-mode=append"} <= set(options)
    assert ("--signal=USR1@120" in options) == template.startswith("train")
    names = [option.partition("=")[0] for option in options]
    assert {name for name in names if "gpu" in name or "mem" in name} == {"--gpus-per-node", "--mem"}
    assert "slurm/launch.sh" in path.read_text()
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
