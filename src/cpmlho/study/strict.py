"""Strict models of settings, and the one line about a mistake in them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from cpmlho.core.options import Options

Kind = TypeVar("Kind", bound=Options)
Model = TypeVar("Model", bound=BaseModel)
MAPPING, LIST = "must be a mapping of settings", "must be a list"
CONTAINERS = {"model_type": MAPPING, "dict_type": MAPPING, "list_type": LIST, "tuple_type": LIST}  # by pydantic's error
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
    """The message about a name that is not known, with the one that was probably meant.

    Args:
        what: what the message calls it, such as `method sgd`.
        name: the unknown name.
        known: all names that are right.
    """
    close = get_close_matches(name, known, 1)
    meant = f"; did you mean {close[0]}? Known: " if close else "; known: "
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return f"unknown {what}{meant}{', '.join([*known][:LISTED]) or 'none'}{more}"


def refuse_unknown(names: Collection[Any], known: Collection[str], path: str = "") -> None:
    """Refuse settings that do not exist.

    Raises:
        PydanticCustomError: one of the names is not known.
    """
    for name in map(str, names):
        if name not in known:
            raise setting_error(joined(path, name), unknown("setting", name, known))


def joined(*path: object) -> str:
    """The parts of a setting's path with dots between them."""
    return ".".join(str(part) for part in path if part not in ("", "[key]"))


def setting_error(path: str, text: str) -> PydanticCustomError:
    """An error in the setting at `path`; pydantic adds the path of the model that raises it."""
    return PydanticCustomError("setting", "{path}: {text}", {"path": path, "text": text})


def mistake(error: ValidationError) -> tuple[str, str]:
    """The path of the first wrong setting, and what is wrong with it; then how many more mistakes there are."""
    first, *rest = error.errors(include_url=False)
    path, text = joined(*first["loc"]), first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if first["type"] == "setting":
        path, text = joined(path, first["ctx"]["path"]), first["ctx"]["text"]
    elif first["type"] == "missing":
        text = "is missing"
    elif first["type"] != "value_error":
        text = f"{CONTAINERS.get(first['type'], text)}, got {shown(first['input'])}"
    more = f" (and {len(rest)} more)" if rest else ""
    return path, " ".join(f"{text}{more}".split())


def one_line(error: ValidationError) -> str:
    """The first mistake with its path."""
    return ": ".join(filter(None, mistake(error)))


def shown(value: object) -> str:
    """A wrong value as a message shows it: at most its beginning."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def read_options(kind: type[Kind], content: Any, path: str = "") -> Kind:
    """Options of a method, a network or the training from their settings; what is not given has its default.

    Args:
        kind: the dataclass of the options.
        content: the settings by name, or what a person wrote in their place.
        path: where they stand in the model that reads them.

    Raises:
        PydanticCustomError: an unknown setting, or a value that it cannot have.
    """
    if isinstance(content, kind):
        return content
    names = [field.name for field in fields(kind)]
    if not isinstance(content, Mapping):
        raise setting_error(path, f"{MAPPING}, got {shown(content)}")
    refuse_unknown(content, names, path)
    try:
        # As JSON: of Python objects, strict validation wants an instance of the dataclass, and tuples instead of lists.
        found: Kind = _adapter(cast(Any, kind)).validate_json(json.dumps(dict(content)))
    except ValidationError as error:
        place, text = mistake(error)
        name, _, rest = text.partition(" ")  # a check of the dataclass itself begins with the name of the field
        place, text = (name, rest) if not place and name in names else (place, text)
        raise setting_error(joined(path, place), text) from None
    return found


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def parse(kind: type[Model], text: str, where: str) -> Model:
    """A model from JSON.

    Raises:
        ConfigError: the text does not fit the model; the message begins with `where`.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"{where}: {one_line(error)}") from None
