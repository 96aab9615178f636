"""Files of a user's own, for methods, datasets and networks: run before the protocol that names them is checked.

No torch.
"""

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
DECORATORS = "@method(...), @dataset(...) or @network(...)"
_LOADED: set[Path] = set()


def load_plugins(files: Sequence[str]) -> None:
    """Run each file that this process has not run yet, so that what it declares is registered.

    Args:
        files: paths from the working directory; `~` is a home directory.

    Raises:
        ValueError: a file cannot be read, is not Python, raises, or registers nothing; the message says where. What
            it had registered by then is registered no more.
    """
    for file in files:
        path = Path(file).expanduser().resolve()
        if path in _LOADED:
            continue
        before = [dict(each) for each in REGISTRIES]
        try:
            _run(file, path)
            if before == [*REGISTRIES]:
                raise ValueError(f"{file}: registers nothing; decorate a function with {DECORATORS}")
        except BaseException:
            for each, earlier in zip(REGISTRIES, before, strict=True):
                each.clear()
                each.update(earlier)
            raise
        _LOADED.add(path)


def _run(file: str, path: Path) -> None:
    name = f"plugin_{path.stem}_{len(_LOADED)}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # where dataclasses look their annotations up
    try:
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec", dont_inherit=True), module.__dict__)
    except OSError as error:
        if error.filename == str(path):
            raise ValueError(f"{file}: cannot be read: {error.strerror}") from None
        raise ValueError(_raised(file, path, error)) from None
    except SyntaxError as error:
        raise ValueError(f"{file} line {error.lineno}: not valid Python: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except Exception as error:
        raise ValueError(_raised(file, path, error)) from None


def _raised(file: str, path: Path, error: Exception) -> str:
    """What the file raised, and the last of its own lines that led there."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f"{file} line {lines[-1]}" if lines else file
    return f"{where}: {type(error).__name__}: {error}"
