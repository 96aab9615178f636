"""What the workflow's jobs get from this machine: an environment that changes no result, and the GPUs."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, MutableMapping
from itertools import takewhile
from pathlib import Path

from cpmlho.study.settings import Device, Tracking
from cpmlho.study.strict import ConfigError
from cpmlho.study.tracking.place import TRACKING_URI, shown

JOB_ENVIRONMENT = {
    # Results depend on torch's number of threads. With one, `--cores` above the machine's cores costs little.
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    # The process keeps freed memory: getting it from the system again in each step takes 5 % of a CNN's training.
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MPLBACKEND": "agg",  # a notebook exports a backend of its own
    "PYTHONUTF8": "1",  # prints names and messages in any locale
}
# Variables meant for other programs: they bind processes to one core, or change the interpreter.
INHERITED = ("PYTHON", "OMP_PLACES", "OMP_PROC_BIND", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")
GPU_NAME = re.compile(r"\d+|(GPU|MIG)-[\w/-]+")  # in CUDA_VISIBLE_DEVICES


def find_gpus(device: Device, environment: Mapping[str, str]) -> list[str]:
    """Return the GPUs for the runs, as CUDA_VISIBLE_DEVICES names them; empty if the runs use the CPU."""
    if device == "cpu":
        return []
    if (visible := environment.get("CUDA_VISIBLE_DEVICES")) is not None:
        # Like CUDA, ignore everything from the first entry that is not a device, such as -1 or Slurm's NoDevFiles.
        return list(takewhile(GPU_NAME.fullmatch, visible.replace(" ", "").split(",")))
    try:
        listing = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False, env={**environment}
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        listing = ""
    found = [line for line in listing.splitlines() if line.startswith("GPU ")]
    unseen = ["0"] if device == "cuda" else []  # the run itself reports that no GPU works
    return [str(index) for index, _ in enumerate(found)] or unseen


def prepare(environment: MutableMapping[str, str], source: Path, tracking: Tracking) -> None:
    """Set the environment of the jobs, so that inherited variables change neither what they run nor how.

    Args:
        environment: `os.environ`.
        source: the folder of the package that the jobs run, whatever is installed or exported.
        tracking: names the store; jobs get its address here, because it may hold a password, and not in the protocol.
    """
    for name in [name for name in environment if name.startswith(INHERITED)]:
        del environment[name]
    environment.update(JOB_ENVIRONMENT, PYTHONPATH=str(source.resolve()))
    if tracking.uri:
        environment[TRACKING_URI] = tracking.uri


def need_server(tracking: Tracking, environment: Mapping[str, str]) -> None:
    """Check that jobs on other machines track to a server, because SQLite loses data on a network file system.

    Raises:
        ConfigError: the tracking store is not a server.
    """
    uri = tracking.uri or environment.get(TRACKING_URI, "")
    if not uri.startswith(("http://", "https://")):
        raise ConfigError(
            f"{TRACKING_URI}: jobs on other machines need a tracking server, got {shown(uri) or 'nothing'};"
            f" export {TRACKING_URI}=http://HOST:PORT (docs/cluster.md)"
        )
