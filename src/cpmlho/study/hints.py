"""Commands in messages, complete, so that they work when they are copied."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

_CONFIGS: list[str] = []


def repeat_configs(files: Iterable[Path | str]) -> None:
    """Add these configuration files to every command in a message of this process."""
    _CONFIGS[:] = map(str, files)


def command(*words: str) -> str:
    """Return the command line of a verb, with this Python and the configuration files of this process."""
    python = sys.executable
    if shutil.which("python") == python:
        python = "python"
    elif Path(python).is_relative_to(Path.cwd()):
        python = os.path.relpath(python)
    options = [option for file in _CONFIGS for option in ("--config", file)]
    return shlex.join([python, "-m", "cpmlho", *words, *options])
