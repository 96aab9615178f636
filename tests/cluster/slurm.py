"""A Slurm with one node on loopback, without accounting; and faults of the kinds that happen on clusters."""

from __future__ import annotations

import re
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
from tests.cluster.services import PATIENCE, Service, free_port, wait_for

PROGRAMS = {"slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client", "munged": "munge"}
# Jobs are submitted without SLURM_CONF, so the file must be at Slurm's default place.
CONFIGURATION = Path("/etc/slurm/slurm.conf")
MARK = "# made by make test-cluster"
CLUSTER = "cpmlho-test"
CONTENT = """{mark}
ClusterName={cluster}
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=2
GresTypes=gpu
KillWait=5
ReturnToService=2
MinJobAge=3600
SlurmdParameters=config_overrides
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=64000 Gres=gpu:1
PartitionName=test Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def slurm(folder: Path, cpus: int) -> Iterator[None]:
    """Run a Slurm that accepts jobs, with its files in `folder`."""
    with ExitStack() as stack:
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True)
        gres = CONFIGURATION.with_name("gres.conf")
        stack.callback(end_jobs)
        for path in (CONFIGURATION, gres):
            stack.callback(path.unlink, missing_ok=True)
        CONFIGURATION.parent.mkdir(exist_ok=True)
        names = {"mark": MARK, "cluster": CLUSTER, "folder": folder, "cpus": cpus}
        CONFIGURATION.write_text(CONTENT.format(**names, controller=free_port(), node=free_port()))
        gres.write_text(f"{MARK}\nNodeName=localhost Name=gpu File=/dev/null\n")
        key = folder / "munge.key"
        key.touch(0o400)
        key.write_bytes(secrets.token_bytes(1024))
        paths = [f"--{name}={folder}/munge.{name.removesuffix('-file')}" for name in ("socket", "pid-file", "log-file")]
        # Forced, because munged refuses root and folders below a writable one.
        munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--seed-file={folder}/munge.seed", *paths]
        stack.enter_context(Service(folder / "munged.log", munged))
        wait_for("munged", (folder / "munge.socket").exists)
        stack.enter_context(Service(folder / "slurmctld.log", ["slurmctld", "-D", "-c"]))
        stack.enter_context(Service(folder / "slurmd.log", ["slurmd", "-D", "-N", "localhost"]))
        stack.callback(command, "scancel", "--full", "--user=root", check=False)
        wait_for("Slurm's node", lambda: "idle" in command("sinfo", "--noheader", "--format=%T", check=False))
        yield


def end_jobs() -> None:
    """Kill the remaining processes of jobs: a failed node no longer controls its processes."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("SLURM_CLUSTER_NAME") == CLUSTER:
                process.kill()


def command(*arguments: str, check: bool = True) -> str:
    """Return what one of Slurm's commands prints."""
    run = subprocess.run(arguments, check=check, capture_output=True, text=True, timeout=PATIENCE)
    return run.stdout.strip()


class Attacks:
    """Faults in a workflow's runs; each hits a run without an earlier fault, because a job has three attempts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hit: set[str] = set()

    def kill(self) -> None:
        """Send SIGKILL to a run's process."""
        self._next()[0].kill()

    def cancel(self) -> None:
        """Cancel a run's job."""
        process, job = self._next()
        command("scancel", job)
        with suppress(psutil.NoSuchProcess):
            process.resume()

    def time_out(self) -> None:
        """Leave a run's process stopped, and shorten its job's time limit to a minute."""
        command("scontrol", "update", f"JobId={self._next()[1]}", "TimeLimit=1")

    def fail_node(self) -> None:
        """Take the node down with all its jobs, and back up; Slurm requeues the jobs, here without a delay."""
        self._next()[0].resume()
        self._hit |= {name for name, _, _ in self._runs()}
        command("scontrol", "update", "NodeName=localhost", "State=DOWN", "Reason=test")
        wait_for("the node to lose its jobs", lambda: not running_jobs())
        command("scontrol", "update", "NodeName=localhost", "State=RESUME", check=False)  # it may already be back
        wait_for("the node's return", lambda: command("sinfo", "--noheader", "--states=IDLE,MIXED,ALLOCATED"))
        for line in command("squeue", "--noheader", "--states=PENDING", "--format=%A %r").splitlines():
            if line.endswith(" BeginTime"):
                command("scontrol", "update", f"JobId={line.split()[0]}", "StartTime=now")

    def _next(self) -> tuple[psutil.Process, str]:
        """Return the process, stopped so that it cannot end, and the job of a run without an earlier fault."""
        found: list[tuple[str, psutil.Process, str]] = []

        def look() -> bool:
            found.extend(each for each in self._runs() if not found and each[0] not in self._hit and stopped(each[1]))
            return bool(found)

        wait_for("a job without a fault", look)
        self._hit.add(found[0][0])
        return found[0][1:]

    def _runs(self) -> Iterator[tuple[str, psutil.Process, str]]:
        """Yield name, process and job of each run in progress."""
        jobs = running_jobs()
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # ended meanwhile, or not readable
                arguments = process.cmdline()
                if arguments[1:4] == ["-m", "cpmlho", "run"] and Path(process.cwd()) == self._folder:
                    name = "_".join(arguments[4:7])
                    if name in jobs:
                        yield name, process, jobs[name]


def running_jobs() -> dict[str, str]:
    """Return the number of each running job by the wildcards of its rule."""
    lines = command("squeue", "--noheader", "--states=RUNNING", "--format=%A %k", check=False).splitlines()
    found = (line.split(" ", 1) for line in lines if re.match(r"\d+ \S", line))
    return {comment.split("_wildcards_")[-1]: job for job, comment in found}


def ended(state: str) -> int:
    """Return how many jobs have ended in a state, such as TIMEOUT."""
    return len(command("squeue", "--noheader", f"--states={state}", "--format=%A").splitlines())


def stopped(process: psutil.Process) -> bool:
    """Return whether a process could be stopped before it ended; the signal takes effect a little later."""
    ends = {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    try:
        process.suspend()
        wait_for("a process to stop", lambda: process.status() in ends)
        return bool(process.status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False
