"""Settings that are read strictly, and what is said of a mistake in them."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

Model = TypeVar("Model", bound=BaseModel)


class ConfigError(Exception):
    """The configuration cannot be used; the message says in one line what is wrong, where, and what would be right."""


class Strict(BaseModel):
    """A frozen model that refuses unknown keys and silent conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def setting_error(path: str, text: str) -> PydanticCustomError:
    """An error about the setting at `path`; pydantic puts where the options stand before it."""
    return PydanticCustomError("setting", "{path}: {text}", {"path": path, "text": text})


def one_line(error: ValidationError) -> str:
    """The first mistake, with the setting that it is in, and how many more there are."""
    first, *rest = error.errors(include_url=False)
    where = ".".join(str(part) for part in first["loc"] if part != "[key]")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "setting":
        where, message = f"{where}.{first['ctx']['path']}", first["ctx"]["text"]
    elif first["type"] == "extra_forbidden":
        message = "unknown setting"
    elif first["type"] not in ("missing", "value_error"):
        message += f", got {first['input']!r}"
    more = f" (and {len(rest)} more)" if rest else ""
    return " ".join(f"{where}: {message}{more}".removeprefix(": ").split())


def parse(kind: type[Model], text: str, option: str) -> Model:
    """A specification or a whole protocol from the JSON that a command-line option gives.

    Raises:
        ConfigError: it is not one.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"{option}: {one_line(error)}") from None
