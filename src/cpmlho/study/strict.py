"""Strict models of settings, and the one line about a mistake in them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from cpmlho.core.options import Options

Kind = TypeVar("Kind", bound=Options)
Model = TypeVar("Model", bound=BaseModel)
CONTAINERS = {  # by pydantic's type of error
    **dict.fromkeys(("model_type", "dict_type", "dataclass_type"), "must be a mapping of settings"),
    **dict.fromkeys(("list_type", "tuple_type"), "must be a list"),
}
LISTED = 20  # names in a message
SHOWN = 80  # characters of a wrong value in a message


class ConfigError(Exception):
    """The configuration cannot be used; the message says in one line what is wrong, where, and what would be right."""


class Strict(BaseModel):
    """A frozen model that refuses unknown keys and silent conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, content: Any) -> Any:
        if isinstance(content, Mapping) and cls.model_config.get("extra") == "forbid":
            refuse_unknown(content, cls.model_fields)
        return content


def unknown(what: str, name: str, known: Collection[str]) -> str:
    """Return the message about a name that is not known, with the one that was probably meant.

    Args:
        what: what the message calls it, such as `method sgd`.
        name: the unknown name.
        known: all names that are right.
    """
    close = get_close_matches(name, known, 1)
    meant = f"; did you mean {close[0]}? Known: " if close else "; known: "
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return f"unknown {what}{meant}{', '.join([*known][:LISTED]) or 'none'}{more}"


def refuse_unknown(names: Iterable[Any], known: Collection[str]) -> None:
    """Refuse settings that do not exist.

    Raises:
        ValueError: one of the names is not known.
    """
    for name in map(str, names):
        if name not in known:
            raise ValueError(f"{name}: {unknown('setting', name, known)}")


def one_line(error: ValidationError) -> str:
    """Return the path of the first wrong setting, what is wrong with it, and how many more mistakes there are.

    A check of several settings begins its message with the one to change: `NAME: TEXT` or `NAME must TEXT`.
    """
    first, *rest = error.errors(include_url=False)
    path, text = [str(part) for part in first["loc"] if part != "[key]"], first["msg"]
    if first["type"] == "value_error":
        text = str(first["ctx"]["error"])
        if named := re.match(r"([^\s:]+)(?:: | (?=must ))", text):
            path, text = [*path, named[1]], text[named.end() :]
    elif first["type"] == "missing":
        text = "is missing"
    else:
        text = f"{CONTAINERS.get(first['type'], text.replace('Input should', 'must'))}, got {shown(first['input'])}"
    more = f" (and {len(rest)} more)" if rest else ""
    return ": ".join(filter(None, [".".join(path), " ".join(f"{text}{more}".split())]))


def shown(value: object) -> str:
    """Return a wrong value as a message shows it: at most its beginning."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def read_options(kind: type[Kind], content: Any) -> Kind:
    """Return the options of a method, a network or the training; a setting that is not given has its default.

    Args:
        kind: the dataclass of the options.
        content: the settings by name.

    Raises:
        ValueError: an unknown setting, or a value that it cannot have.
    """
    if isinstance(content, kind):
        return content
    if isinstance(content, Mapping):
        refuse_unknown(content, [field.name for field in fields(kind)])
    # As JSON: of Python objects, strict validation wants an instance of the dataclass, and tuples instead of lists.
    found: Kind = _adapter(cast(Any, kind)).validate_json(json.dumps(content))
    return found


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def parse(kind: type[Model], text: str, where: str) -> Model:
    """Return a model from JSON.

    Raises:
        ConfigError: the text does not fit the model; the message begins with `where`.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"{where}: {one_line(error)}") from None
