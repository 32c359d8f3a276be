"""A real Slurm on this machine: munged, slurmctld and two nodes, n0 and n1, of eight claimed cores each.

The partition ``urgent`` preempts jobs of the default one, ``main``: they are told, and requeued after the grace time.
All files lie in one temporary folder, all ports are free ones, so that several clusters can run side by side.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.distributed import clean_environment

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
NODES = ("n0", "n1")
GRACE_SECONDS = 40
"""What a preempted job is given to save."""
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY"}
REQUEUE_SECONDS = 5
"""What a requeued job waits at least; two minutes is Slurm's default."""

CONFIGURATION = """\
ClusterName=swintest
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={requeue_seconds}
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
KillWait=5
MessageTimeout=30
MinJobAge=3600
NodeName=n0 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8 RealMemory=3000
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8 RealMemory=3000
PartitionName=main Nodes=n0,n1 Default=YES State=UP PriorityTier=1 GraceTime={grace_seconds}
PartitionName=urgent Nodes=n0,n1 State=UP PriorityTier=10
"""


def missing() -> str:
    """Why no Slurm can be started here; empty if one can."""
    if os.geteuid() != 0:
        return "a Slurm of one's own needs root"
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    return f"not installed: {', '.join(absent)} (apt-get install slurm-wlm munge)" if absent else ""


class Cluster:
    """Starts the daemons; leaving its block ends all jobs and them."""

    def __init__(self) -> None:
        """Raises:
        TimeoutError: the nodes are not ready within a minute; with the logs' ends.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.folder.chmod(0o755)
        (self.folder / "state").mkdir()
        configuration = self.folder / "slurm.conf"
        configuration.write_text(
            CONFIGURATION.format(
                host=socket.gethostname().partition(".")[0],
                folder=self.folder,
                ports=free_ports(3),
                grace_seconds=GRACE_SECONDS,
                requeue_seconds=REQUEUE_SECONDS,
            )
        )
        self.environment = {"SLURM_CONF": str(configuration), "PATH": _path()}
        """What Slurm's commands need to find this cluster."""
        self._daemons: list[subprocess.Popen[bytes]] = []
        try:
            self._start_munge()
            self._start("slurmctld", "-D", "-f", str(configuration))
            for node in NODES:
                self._start("slurmd", "-D", "-N", node, "-f", str(configuration))
            self.wait_for(self._is_up, 60, "the nodes")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends jobs and daemons, and removes the folder."""
        if len(self._daemons) > 2:
            self.run("scancel", "--user=root")
            deadline = time.monotonic() + 20
            while self.queue() and time.monotonic() < deadline:
                time.sleep(0.2)
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in reversed(self._daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- commands --------------------------------------------------------------------------------------------------

    def run(
        self, *command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command that talks to this cluster."""
        environment = clean_environment({**self.environment, **(env or {})})
        return subprocess.run(
            command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=600, check=False
        )

    def sbatch(self, *arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> str:
        """Submits a batch job; returns its number."""
        done = self.run("sbatch", "--parsable", *arguments, cwd=cwd, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().partition(";")[0]

    def queue(self) -> str:
        """The jobs that wait or run, a line each."""
        return self.run("squeue", "--noheader", "--array", "--format=%i %T %r").stdout.strip()

    def job(self, job: str) -> dict[str, str]:
        """What Slurm says of a job or array task (``12_3``)."""
        text = self.run("scontrol", "show", "job", "--oneliner", job).stdout
        return dict(re.findall(r"(\S+?)=(\S*)", text))

    def state(self, job: str) -> str:
        """PENDING, RUNNING, COMPLETING, COMPLETED, FAILED, CANCELLED, TIMEOUT, …"""
        return self.job(job).get("JobState", "UNKNOWN")

    def release(self, job: str) -> None:
        """A requeued job need not wait any longer."""
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now")

    # -- waiting ---------------------------------------------------------------------------------------------------

    def wait_for(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        """Raises:
        TimeoutError: the condition is not met in time; with queue and logs.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not after {seconds} s\n{self.queue()}\n{self.logs()}")
            time.sleep(0.2)

    def wait_ended(self, jobs: Sequence[str], seconds: float = 180) -> list[str]:
        """Waits until none of the jobs runs, waits or will be restarted; returns their states."""
        states: list[str] = []
        self.wait_for(
            lambda: states.extend(self.ended_states(jobs)) or states, seconds, f"the end of {', '.join(jobs)}"
        )
        return states

    def ended_states(self, jobs: Sequence[str]) -> list[str]:
        """The states of the jobs if all have ended, else nothing."""
        states = [self.job(job).get("JobState", "UNKNOWN") for job in jobs]
        return states if set(states) <= ENDED else []

    def logs(self, lines: int = 15) -> str:
        """The ends of the daemons' logs."""
        texts = [
            "\n".join([f"--- {path.name}", *path.read_text(errors="replace").splitlines()[-lines:]])
            for path in sorted(self.folder.glob("*.log"))
        ]
        return "\n".join(texts)

    # -- daemons ---------------------------------------------------------------------------------------------------

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        names = {"socket": "socket", "pid-file": "pid", "seed-file": "seed", "log-file": "log"}
        files = [f"--{option}={self.folder}/munge.{end}" for option, end in names.items()]
        self._start("munged", "--foreground", "--force", f"--key-file={key}", *files)
        self.wait_for((self.folder / "munge.socket").exists, 20, "munge")

    def _start(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.out.log").open("ab") as output:
            self._daemons.append(
                subprocess.Popen(
                    command,
                    env=clean_environment(self.environment),
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def _is_up(self) -> bool:
        states = self.run("sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %t").stdout.split("\n")
        return {f"{node} idle" for node in NODES} <= {state.strip() for state in states}


def free_ports(count: int) -> list[int]:
    """Ports of this machine below those that the kernel gives away, that nobody listens on."""
    ports: list[int] = []
    candidate = 17000 + os.getpid() % 10000
    while len(ports) < count:
        candidate += 1
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", candidate)) != 0:
                ports.append(candidate)
    return ports


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
