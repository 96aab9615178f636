"""Where a number was made: versions and code."""

from __future__ import annotations

import ast
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from cpmlho.study.harness.syntax import digest_of, imported
from cpmlho.study.methods import METHODS

if TYPE_CHECKING:
    import torch

HERE = Path(__file__).resolve().parents[2]  # the package's folder
SHARED = ("study.data", "study.problem", "study.harness.record")
DECIDE_NOTHING = {  # beyond what each result itself records
    *("study.settings", "study.spec", "study.strict", "study.results", "study.options", "core.options"),
    "study.methods.registry",
}
PACKAGES = ("cpmlho", "torch", "numpy", "scikit-optimize")


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def environment(device: torch.device) -> dict[str, str]:
    """What else could have moved a last digit: processor, instructions, threads, system, versions of libraries."""
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
    """A time as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


@cache
def modules(algorithm: str) -> tuple[Path, ...]:
    """The modules that a run of this method executes and that decide its numbers.

    They are the method's own file, wherever it lies, and what it, the reading of the data and the record import of
    this package, and what that imports; settings are not among them, as each result holds its own.
    """
    own = Path(METHODS[algorithm].train.__code__.co_filename).resolve()
    left, found = [*SHARED, *_imports(own)], set[str]()
    while left:
        name = left.pop()
        if name not in found | DECIDE_NOTHING and _path(name).is_file():
            found.add(name)
            left.extend(_imports(_path(name)))
    return tuple(sorted({own, *map(_path, found)}))


def _imports(path: Path) -> list[str]:
    return list(imported(ast.parse(path.read_text(encoding="utf-8"))))


def _path(module: str) -> Path:
    return (HERE / module.replace(".", "/")).with_suffix(".py")


@cache
def code_digest(algorithm: str) -> str:
    """SHA-256 of what decides the numbers of a method's runs, commit or no commit, as `digest_of` takes it."""
    return digest_of([path.read_text(encoding="utf-8") for path in modules(algorithm)])


def git_commit() -> str:
    """The commit of the package's checkout, with `-dirty` if the package differs from it; `unknown` outside one."""
    # A hook or a CI exports which repository it is about.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(HERE), *arguments]
        run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return run.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
