"""Slurm on one node, loopback alone, without accounting: what a test of the profile needs and no more."""

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
# Jobs are submitted without SLURM_CONF, so that the file must lie where Slurm looks by itself.
CONFIGURATION = Path("/etc/slurm/slurm.conf")
MARK = "# made by make test-cluster"
NODE = "localhost"
CLUSTER = "cpmlho-test"
CONTENT = """{mark}
ClusterName={cluster}
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
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
NodeName={node} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=64000 Gres=gpu:1
PartitionName=test Nodes={node} Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def slurm(folder: Path, cpus: int) -> Iterator[None]:
    """A Slurm that takes jobs, until the context ends; its files lie in `folder`.

    Raises:
        TimeoutError: the node does not come up.
    """
    with ExitStack() as stack:
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True)
        gres = CONFIGURATION.with_name("gres.conf")
        stack.callback(end_jobs)
        stack.callback(CONFIGURATION.unlink, missing_ok=True)
        stack.callback(gres.unlink, missing_ok=True)
        CONFIGURATION.parent.mkdir(exist_ok=True)
        ports = {"controller_port": free_port(), "node_port": free_port()}
        CONFIGURATION.write_text(
            CONTENT.format(mark=MARK, cluster=CLUSTER, node=NODE, folder=folder, cpus=cpus, **ports)
        )
        gres.write_text(f"{MARK}\nNodeName={NODE} Name=gpu File=/dev/null\n")
        key = folder / "munge.key"
        key.touch(0o400)
        key.write_bytes(secrets.token_bytes(1024))
        paths = [f"--{name}={folder}/munge.{name.removesuffix('-file')}" for name in ("socket", "pid-file", "log-file")]
        # Forced, as munged wants to be neither root nor in a folder below a writable one.
        munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--seed-file={folder}/munge.seed", *paths]
        stack.enter_context(Service(folder / "munged.log", munged))
        wait_for("munged", (folder / "munge.socket").exists)
        stack.enter_context(Service(folder / "slurmctld.log", ["slurmctld", "-D", "-c"]))
        stack.enter_context(Service(folder / "slurmd.log", ["slurmd", "-D", "-N", NODE]))
        stack.callback(command, "scancel", "--full", "--user=root", check=False)
        wait_for("Slurm's node", lambda: "idle" in command("sinfo", "--noheader", "--format=%T", check=False))
        yield


def made_here() -> bool:
    """Whether the configuration that is there is one that an earlier test has left, having been killed."""
    return CONFIGURATION.read_text().startswith(MARK)


def end_jobs() -> None:
    """Kill what is left of the jobs: a node that failed has let go of its processes."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("SLURM_CLUSTER_NAME") == CLUSTER:
                process.kill()


def command(*arguments: str, check: bool = True) -> str:
    """What one of Slurm's commands prints."""
    run = subprocess.run(arguments, check=check, capture_output=True, text=True, timeout=PATIENCE)
    return run.stdout.strip()


def running_jobs() -> dict[str, str]:
    """The rule and wildcards of each running job, by its number."""
    lines = command("squeue", "--noheader", "--states=RUNNING", "--format=%A %k", check=False).splitlines()
    return dict(line.split(" ", 1) for line in lines if re.match(r"\d+ \S", line))


def ended(state: str) -> int:
    """How many jobs have ended in a state, such as TIMEOUT."""
    return len(command("squeue", "--noheader", f"--states={state}", "--format=%A").splitlines())


def fail_node() -> None:
    """Take the node down, which ends its jobs, and back up; the jobs start again without the two minutes' delay."""
    command("scontrol", "update", f"NodeName={NODE}", "State=DOWN", "Reason=test")
    wait_for("the node to let go of its jobs", lambda: not running_jobs())
    command("scontrol", "update", f"NodeName={NODE}", "State=RESUME", check=False)  # it may have come back by itself
    wait_for("the node's return", lambda: command("sinfo", "--noheader", "--states=IDLE,MIXED,ALLOCATED") != "")
    delayed = command("squeue", "--noheader", "--states=PENDING", "--format=%A %r").splitlines()
    for job, reason in (line.split(" ", 1) for line in delayed):
        if reason == "BeginTime":
            command("scontrol", "update", f"JobId={job}", "StartTime=now")
