"""The files of a configuration: read, and found to blame for a mistake. No torch."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cpmlho.study.strict import ConfigError


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML that refuses a key given twice, where plain YAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"{key} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 1e-4 as text; a person who writes it means the number.
_UniqueKeyLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_file(path: Path) -> dict[str, Any]:
    """The content of a YAML or JSON file.

    Raises:
        ConfigError: it cannot be read, or is no mapping; the message begins with the file, and the line if it has one.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=_UniqueKeyLoader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} line {error.lineno}: not valid JSON: {error.msg}") from None
    except yaml.MarkedYAMLError as error:
        where = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{where}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a mapping of settings, got {type(content).__name__}")
    return content


def blamed(sources: Mapping[str, Mapping[str, Any]], message: str) -> str:
    """The last source that has most of the place which a message begins with; all if none has any of it.

    A variant that no source declares stands where the grid stands that makes it.
    """
    place = message.partition(": ")[0]
    depths = {name: _depth(content, place) for name, content in sources.items()}
    if place.startswith("variants.") and max(depths.values()) < 2:
        depths = {name: _makes(content, place.removeprefix("variants.")) for name, content in sources.items()}
    deepest = [name for name, depth in depths.items() if 0 < depth == max(depths.values())]
    return deepest[-1] if deepest else " + ".join(sources)


def _depth(content: Any, place: str) -> int:
    """How many levels of a dotted place, whose names may hold dots themselves, a configuration has."""
    for key, value in content.items() if isinstance(content, Mapping) else ():
        if place == str(key) or place.startswith(f"{key}."):
            return 1 + _depth(value, place.removeprefix(str(key)).removeprefix("."))
    return 0


def _makes(content: Mapping[str, Any], variant: str) -> int:
    """How much of a variant's name is the name of a grid that a configuration has."""
    grids = content.get("grids")
    names = [str(name) for name in grids if variant.startswith(f"{name}_")] if isinstance(grids, Mapping) else []
    return max(map(len, names), default=0)


def check_text(content: Any, place: str = "") -> None:
    """Refuse text that no file can hold: half a surrogate pair, as a byte that is not UTF-8 becomes, or a zero byte.

    Raises:
        ConfigError: there is some.
    """
    if isinstance(content, Mapping):
        for name, value in content.items():
            check_text([name, value], f"{place}.{name}".removeprefix("."))
    elif isinstance(content, list):
        for value in content:
            check_text(value, place)
    elif isinstance(content, str) and ("\0" in content or content.encode(errors="replace").decode() != content):
        raise ConfigError(f"{ascii(place)[1:-1]}: holds a character that cannot be written: {content!a}")


def at_home(content: dict[str, Any]) -> dict[str, Any]:
    """The configuration with `~` in its paths expanded.

    Raises:
        ConfigError: there is no such home, or the tracking store's address has one, which MLflow would not expand.
    """
    content = copy.deepcopy(content)
    for setting in ("results_dir", "data.dir", "data.folder"):
        group, _, name = setting.rpartition(".")
        place = content.get(group) if group else content
        if isinstance(place, dict) and str(value := place.get(name)).startswith("~"):
            place[name] = os.path.expanduser(str(value))
            if place[name] == value:
                raise ConfigError(f"{setting}: {value}: there is no such home directory")
    tracking = content.get("tracking")
    if isinstance(tracking, dict) and "/~" in str(tracking.get("uri")):
        raise ConfigError("tracking.uri: ~ is not expanded there; write the whole path")
    return content
