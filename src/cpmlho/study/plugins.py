"""Users' own files with methods, datasets and networks; they run before the protocol that names them is checked."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from cpmlho.study.methods import METHODS
from cpmlho.study.registry import NETWORKS, READERS

REGISTRIES: tuple[dict[str, Any], ...] = (METHODS, READERS, NETWORKS)
_LOADED: set[Path] = set()


def load_plugins(files: Sequence[str]) -> None:
    """Run each file that this process has not run yet, to register its methods, datasets and networks.

    Args:
        files: paths from the working directory; `~` is the home directory.

    Raises:
        ValueError: a file cannot be read, is not Python, raises an error, or registers nothing; the message names the
            file and line. Nothing that it registered is kept.
    """
    for file in files:
        path = Path(file).expanduser().resolve()
        if path in _LOADED:
            continue
        before = [dict(each) for each in REGISTRIES]
        try:
            _run(file, path)
            if before == [*REGISTRIES]:
                decorators = "@method(...), @dataset(...) or @network(...)"
                raise ValueError(f"{file}: registers nothing; decorate a function with {decorators}")
        except BaseException:
            for each, earlier in zip(REGISTRIES, before, strict=True):
                each.clear()
                each.update(earlier)
            raise
        _LOADED.add(path)


def _run(file: str, path: Path) -> None:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from None
    module = ModuleType(f"plugin_{path.stem}_{len(_LOADED)}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses look their annotations up
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except Exception as error:
        if isinstance(error, SyntaxError) and error.filename == str(path):
            raise ValueError(f"{file} line {error.lineno}: not valid Python: {error.msg}") from None
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"{file} line {lines[-1]}" if lines else file
        raise ValueError(f"{where}: {type(error).__name__}: {error}") from None
