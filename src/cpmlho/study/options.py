"""Options of the core, read from settings: strictly, and with an error that names the setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, TypeVar, get_type_hints

from pydantic import ValidationError, create_model

from cpmlho.core.options import Options
from cpmlho.study.strict import Strict, setting_error

Kind = TypeVar("Kind", bound=Options)


def parse_options(kind: type[Kind], content: Any, path: str = "") -> Kind:
    """Options from settings, of which none need be given.

    Args:
        kind: of the options.
        content: the settings by name, or what a person wrote in their place.
        path: where they stand, with a dot at its end.

    Raises:
        PydanticCustomError: an unknown setting, or a value that it cannot have.
    """
    if not isinstance(content, Mapping):
        raise setting_error(path.removesuffix("."), f"must be a mapping of settings, got {content!r}")
    hashable: Any = kind  # which mypy doubts
    try:
        return kind(**_model(hashable).model_validate(dict(content)).model_dump())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        text = {"extra_forbidden": "unknown setting", "missing": first["msg"]}.get(
            first["type"], f"{first['msg']}, got {first['input']!r}"
        )
        raise setting_error(path + ".".join(map(str, first["loc"])), text) from None
    except ValueError as error:
        name, _, text = str(error).partition(" ")
        raise setting_error(path + name, text) from None


@cache
def _model(kind: Any) -> type[Strict]:
    """A model that refuses unknown settings and silent conversions, where a dataclass takes anything."""
    hints = get_type_hints(kind)
    columns: dict[str, Any] = {
        each.name: (hints[each.name], ... if each.default is MISSING else each.default) for each in fields(kind)
    }
    model: type[Strict] = create_model(kind.__name__, __base__=Strict, **columns)
    return model
