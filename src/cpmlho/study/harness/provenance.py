"""The provenance of a run: commit, versions, machine and plug-in files. It imports torch only when called."""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpmlho.study.methods import METHODS
from cpmlho.study.registry import NETWORKS, READERS

if TYPE_CHECKING:
    import torch

    from cpmlho.study.settings import Dataset

HERE = Path(__file__).resolve().parents[2]  # the package's folder
PACKAGES = ("cpmlho", "torch", "numpy", "scikit-optimize")
REPOSITORY = {"GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that determine a run's numbers."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def environment(device: torch.device) -> dict[str, str]:
    """Return what else can change the last digits: processor, instructions, threads, system and further versions."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    return {
        "processor": str(capabilities.get("cpu_name", "")) or platform.processor(),
        "instructions": " ".join(sorted(str(name) for name, there in capabilities.items() if there is True)),
        "onednn_max_cpu_isa": os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
        "threads": str(torch.get_num_threads()),
        "system": platform.platform(),
        "cuda": str(torch.version.cuda) if device.type == "cuda" else "",
        **{name: version(name) for name in ("scipy", "scikit-learn")},
    }


def utc(seconds: float) -> str:
    """Return a time as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def plugin_sha256(data: Dataset, algorithm: str | None = None) -> dict[str, str]:
    """Return the SHA-256 of each plug-in file that a run uses, by what it defines: `network`, `reader` or `method`.

    Args:
        data: the dataset, which names its network and may name a reader.
        algorithm: the method; None for the files of the dataset alone.
    """
    functions: dict[str, Callable[..., Any]] = {"network": NETWORKS[data.network.kind].build}
    if data.reader:
        functions["reader"] = READERS[data.reader].read
    if algorithm:
        functions["method"] = METHODS[algorithm].train
    files = {part: Path(inspect.getfile(inspect.unwrap(function))).resolve() for part, function in functions.items()}
    own = {part: file for part, file in files.items() if not file.is_relative_to(HERE)}
    return {part: hashlib.sha256(file.read_bytes()).hexdigest() for part, file in own.items()}


def git_commit() -> str:
    """Return the commit that this package is checked out from, with `-dirty` if the package differs from it.

    It is `unknown` without git, without a repository that git may read, and in a repository that does not track the
    package, for example after the project was copied into the folder of another one.
    """
    # A hook or a CI job may export variables that name another repository.
    environment = {name: value for name, value in os.environ.items() if name not in REPOSITORY}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(HERE), *arguments]
        run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return run.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", "__init__.py")
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
