"""Where a number was made: versions and code."""

from __future__ import annotations

import ast
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpmlho.study.harness.syntax import digest_of, foreign, imported
from cpmlho.study.methods import METHODS
from cpmlho.study.registry import NETWORKS, READERS

if TYPE_CHECKING:
    import torch

    from cpmlho.study.settings import Dataset

HERE = Path(__file__).resolve().parents[2]  # the package's folder
SHARED = ("study.data", "study.networks", "study.problem", "study.harness.record")
DECIDE_NOTHING = {  # beyond what each result itself records
    *("study.settings", "study.spec", "study.strict", "study.results", "study.options", "core.options"),
    *("study.registry", "study.methods.registry"),
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


def libraries(algorithm: str, data: Dataset) -> dict[str, str]:
    """Versions of the libraries that the files of a user's own behind a run import, beyond those in `versions`."""
    own = [file for file in modules(algorithm, plugged(data)) if not file.is_relative_to(HERE)]
    names = {name for file in own for name in foreign(ast.parse(file.read_text(encoding="utf-8")))}
    found = packages_distributions() if names else {}
    return {each: version(each) for name in sorted(names) for each in found.get(name, ()) if each not in PACKAGES}


def utc(seconds: float) -> str:
    """A time as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def plugged(data: Dataset) -> tuple[Path, ...]:
    """The files of a user's own that read a dataset and build its network."""
    functions = [NETWORKS[data.network.kind].build, *([READERS[data.reader].read] if data.reader else [])]
    files = {_file(function) for function in functions}
    return tuple(sorted(file for file in files if not file.is_relative_to(HERE)))


@cache
def modules(algorithm: str, further: tuple[Path, ...] = ()) -> tuple[Path, ...]:
    """The modules that a run of this method executes and that decide its numbers.

    They are the method's own file, wherever it lies, the further ones, and what they, the reading of the data, the
    networks and the record import of this package, and what that imports; settings are not among them, as each result
    holds its own.
    """
    own = {_file(METHODS[algorithm].train), *further}
    left, found = [*SHARED, *(name for file in own for name in _imports(file))], set[str]()
    while left:
        name = left.pop()
        if name not in found | DECIDE_NOTHING and _path(name).is_file():
            found.add(name)
            left.extend(_imports(_path(name)))
    return tuple(sorted({*own, *map(_path, found)}))


def _file(function: Any) -> Path:
    return Path(function.__code__.co_filename).resolve()


@cache
def _imports(path: Path) -> tuple[str, ...]:
    return tuple(imported(ast.parse(path.read_text(encoding="utf-8"))))


def _path(module: str) -> Path:
    return (HERE / module.replace(".", "/")).with_suffix(".py")


@cache
def code_digest(algorithm: str, further: tuple[Path, ...] = ()) -> str:
    """SHA-256 of what decides the numbers of a method's runs, commit or no commit; arguments as `modules`."""
    return digest_of_files(modules(algorithm, further))


def digest_of_files(files: Iterable[Path]) -> str:
    """SHA-256 of what the code in files does, as `digest_of` takes it."""
    return digest_of([path.read_text(encoding="utf-8") for path in files])


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
