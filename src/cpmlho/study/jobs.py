"""What the workflow gives its jobs of this machine: an environment that changes no number, and the GPUs."""

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
    # Torch on one thread: more threads give other bits, and `--cores` above the machine's cores then costs little.
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    # Freed memory stays the process's: to fault the pages of each step's tensors in anew takes 5 % of a CNN's training.
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MPLBACKEND": "agg",  # a notebook exports a backend of its own
    "PYTHONUTF8": "1",  # names and messages print whatever the locale
}
# Set for other programs of the same shell: processes bound to one core, interpreters with switches of their own.
INHERITED = ("PYTHON", "OMP_PLACES", "OMP_PROC_BIND", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")
GPU_NAME = re.compile(r"\d+|(GPU|MIG)-[\w/-]+")  # in CUDA_VISIBLE_DEVICES


def find_gpus(device: Device, environment: Mapping[str, str]) -> list[str]:
    """The GPUs that the runs are shared out over, as CUDA_VISIBLE_DEVICES names them; none: the runs use the CPU."""
    if device == "cpu":
        return []
    if (visible := environment.get("CUDA_VISIBLE_DEVICES")) is not None:
        # As CUDA does, heed none from the first that names no device, such as -1 or Slurm's NoDevFiles.
        return list(takewhile(GPU_NAME.fullmatch, visible.replace(" ", "").split(",")))
    try:
        listing = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False, env={**environment}
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        listing = ""
    found = [line for line in listing.splitlines() if line.startswith("GPU ")]
    unseen = ["0"] if device == "cuda" else []  # asked for by name: let the run itself say that it is missing
    return [str(index) for index, _ in enumerate(found)] or unseen


def prepare(environment: MutableMapping[str, str], source: Path, tracking: Tracking) -> None:
    """Make the environment the jobs': of what was inherited nothing changes what they run, or how.

    Args:
        environment: `os.environ`.
        source: the folder with the package that the jobs run, whatever is installed or was exported.
        tracking: the store goes this way, as its address may hold a password, and the protocol's file must not.
    """
    for name in [name for name in environment if name.startswith(INHERITED)]:
        del environment[name]
    environment.update(JOB_ENVIRONMENT, PYTHONPATH=str(source.resolve()))
    if tracking.uri:
        environment[TRACKING_URI] = tracking.uri


def need_server(tracking: Tracking, environment: Mapping[str, str]) -> None:
    """For jobs on other machines: SQLite loses data on a network file system.

    Raises:
        ConfigError: the tracking store is no server.
    """
    uri = tracking.uri or environment.get(TRACKING_URI, "")
    if not uri.startswith(("http://", "https://")):
        raise ConfigError(
            f"{TRACKING_URI}: jobs on other machines need a tracking server, got {shown(uri) or 'nothing'};"
            f" export {TRACKING_URI}=http://HOST:PORT (docs/cluster.md)"
        )
