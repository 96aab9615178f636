"""Where a number was made: versions and code."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("cpmlho", "torch", "numpy", "scikit-optimize")


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def modules(algorithm: str) -> list[Path]:
    """The modules that decide a run's numbers: the shared ones and its own algorithm's, not the other methods'."""
    here = Path(__file__).parent
    own = here / "tuning" / "methods" / f"{algorithm}.py"
    return [here / "data.py", here / "results.py", *sorted(here.glob("tuning/*.py")), own]


def code_digest(algorithm: str) -> str:
    """SHA-256 over the modules that decide a run's numbers, commit or no commit."""
    digest = hashlib.sha256()
    for path in modules(algorithm):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def git_commit() -> str:
    """The commit of the package's checkout, with `-dirty` if the package differs from it; `unknown` outside one."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        run = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True)
        return run.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
