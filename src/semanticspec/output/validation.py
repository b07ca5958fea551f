"""Parses files with pydantic and reports what is wrong with them in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from semanticspec.errors import ConfigError, SemanticSpecError

Parsed = TypeVar("Parsed")

STRICT = ConfigDict(extra="forbid", strict=True)
"""For dataclasses (`@with_config(STRICT)`) and models that are read from files: no unknown keys, no coercion."""

_MAX_ERRORS = 3
_MAX_VALUE_CHARACTERS = 80


def parse_json(
    kind: type[Parsed],
    text: str | bytes,
    origin: str,
    *,
    raises: type[SemanticSpecError] = ConfigError,
    hint: str = "",
) -> Parsed:
    """Parses JSON text into a dataclass or model.

    Args:
        kind: the type to build; use `STRICT` as its configuration.
        origin: file name for the message.
        raises: type of the error.
        hint: how to fix the file, appended to the message.

    Raises:
        SemanticSpecError: of type `raises`, if the text is not JSON, or does not fit `kind`.
    """
    adapter = TypeAdapter(kind)
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        message = validation_message(error, origin, adapter.json_schema())
        raise raises(f"{message}; {hint}" if hint else message) from error


def validation_message(error: ValidationError, origin: str, schema: Mapping[str, Any] | None = None) -> str:
    """Returns one line with the file, and for each of the first errors the field, the value and what was expected.

    Args:
        origin: file name.
        schema: JSON schema of the parsed type; with it, the message for an unknown key lists the known ones.
    """
    found = error.errors(include_url=False)
    messages = [_describe(one, schema or {}) for one in found[:_MAX_ERRORS]]
    if len(found) > _MAX_ERRORS:
        messages.append(f"and {len(found) - _MAX_ERRORS} more errors")
    return f"{origin}: " + "; ".join(messages)


def _describe(error: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    kind, path = error["type"], error["loc"]
    name = ".".join(map(str, path))
    if kind == "json_invalid":
        return f"not valid JSON ({error['ctx']['error']})"
    if kind == "missing":
        return f"{name} is missing"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _known_keys(schema, path[:-1])
        return f"unknown key {name}" + (f"; expected one of {', '.join(known)}" if known else "")
    if kind == "value_error":  # raised by __post_init__ or a validator, with its own text
        text = " ".join(str(error["ctx"]["error"]).split())
        return f"{name}: {text}" if name else text
    value = repr(error["input"])
    if len(value) > _MAX_VALUE_CHARACTERS:
        value = value[: _MAX_VALUE_CHARACTERS - 3] + "..."
    expected = error["msg"].removeprefix("Input should be ")
    return f"{name or 'content'} is {value}; expected {expected}"


def _known_keys(schema: Mapping[str, Any], path: tuple[str | int, ...]) -> list[str]:
    """Returns the keys that a JSON schema allows at a path; an empty list if it does not say."""
    node: Mapping[str, Any] = _resolve(schema, schema)
    for part in path:
        child = node.get("properties", {}).get(part) or node.get("items") or node.get("additionalProperties")
        if not isinstance(child, Mapping):
            return []
        node = _resolve(child, schema)
    return list(node.get("properties", {}))


def _resolve(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follows a reference, also as one of several alternatives (`X | None`)."""
    for option in (node, *node.get("anyOf", ())):
        if "$ref" in option:
            found: Mapping[str, Any] = schema["$defs"][option["$ref"].rpartition("/")[2]]
            return found
    return node
