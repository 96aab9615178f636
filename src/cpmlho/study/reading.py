"""Configuration from files and the command line: one reader for all of it, and which source a mistake stands in."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.constructor import ConstructorError

from cpmlho.study.strict import ConfigError, shown

TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of version 1.2, each key once, and names as text.

    PyYAML reads version 1.1, where 010 is 8, 1:30 is 90 and `no` is false, and 1e-4 is text. Here only the last is a
    number; the others are text, which no number or truth value accepts.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (as PyYAML declares it)
    yaml_constructors: ClassVar[dict[Any, Any]] = {
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if tag in (None, *(TAG + kind for kind in ("null", "bool", "int", "float", "str")))
    }

    def mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != f"{TAG}merge"]
        for i, key in enumerate(keys):
            if key.value in [other.value for other in keys[:i]]:
                raise ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
        self.flatten_mapping(node)
        return {str(self.construct_scalar(key)): self.construct_object(value, deep=True) for key, value in node.value}

    def sequence(self, node: yaml.SequenceNode) -> list[Any]:
        return self.construct_sequence(node, deep=True)


_Loader.add_constructor(f"{TAG}map", _Loader.mapping)
_Loader.add_constructor(f"{TAG}seq", _Loader.sequence)
for kind, pattern in {
    "merge": "<<",
    "null": "|~|null|Null|NULL",
    "bool": "true|True|TRUE|false|False|FALSE",
    "int": "[-+]?(0|[1-9][0-9]*)",
    "float": r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}.items():
    _Loader.add_implicit_resolver(TAG + kind, re.compile(f"^({pattern})$"), None)


def read_text(text: str, where: str) -> Any:
    """Return the content of a text in YAML; None if it is empty.

    Raises:
        ConfigError: it is not YAML; the message begins with `where`.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{where}{line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None


def read_file(path: Path) -> dict[str, Any]:
    """Return the settings in a YAML or JSON file; no settings if it is empty.

    Raises:
        ConfigError: it cannot be read, or is no mapping; the message begins with the file, and the line if it has one.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a byte order mark
        json_text = path.suffix == ".json" and text.strip()
        content = json.loads(text) if json_text else read_text(text, str(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} line {error.lineno}: not valid JSON: {error.msg}") from None
    if not isinstance(content, dict | None):
        raise ConfigError(f"{path}: must be a mapping of settings, got {shown(content)}")
    return content or {}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge mappings key by key, where an empty section changes nothing.

    Anything else is replaced, and so is a mapping of another `kind`.
    """
    result = copy.deepcopy(dict(base))
    for key, value in over.items():
        section = result.get(key)
        if not isinstance(section, Mapping):
            result[key] = copy.deepcopy(value)
        elif isinstance(value, Mapping) and value.get("kind", section.get("kind")) == section.get("kind"):
            result[key] = merge(section, value)
        elif value is not None:
            result[key] = copy.deepcopy(value)
    return result


def blamed(sources: Mapping[str, Mapping[str, Any]], place: str) -> str:
    """Return the last source that has most of the path of a setting; all sources if none has any of it."""
    depths = {name: _depth(content, place) for name, content in sources.items()}
    if place.startswith("variants.") and max(depths.values()) < 2:  # a grid makes the variant
        grids = [name for content in sources.values() for name in content.get("grids") or ()]
        makers = [name for name in grids if place.startswith(f"variants.{name}_")]
        return blamed(sources, f"grids.{max(makers, key=len, default='')}")
    deepest = [name for name, depth in depths.items() if 0 < depth == max(depths.values())]
    return deepest[-1] if deepest else " + ".join(sources)


def _depth(content: Any, place: str) -> int:
    """Return how many levels of a dotted path, whose names may hold dots themselves, a configuration has."""
    for key, value in content.items() if isinstance(content, Mapping) else ():
        if place == str(key) or place.startswith(f"{key}."):
            return 1 + _depth(value, place.removeprefix(str(key)).removeprefix("."))
    return 0
