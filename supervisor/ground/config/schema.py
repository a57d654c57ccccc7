"""The tables as JSON Schema (draft 2020-12), so that editors complete and check a configuration.

Generated from the same types that structure the file: what the schema takes, `portway check` takes too, except for
what one value alone can't tell (references, files, duplicates).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, get_args

import attrs

from . import shapes
from .load import tables_of
from .shapes import Between

_SCALARS: dict[type, dict[str, Any]] = {
    str: {"type": "string"},
    FilePath: {"type": "string", "minLength": 1},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
}


def json_schema(tables: Mapping[str, type]) -> dict[str, Any]:
    """The schema of a whole file with these tiers."""
    definitions: dict[str, Any] = {}
    properties = {name: _schema(kind, definitions) for name, kind in tables_of(tables).items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Portway",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": definitions,
    }


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    kind, between = shapes.strip(kind)
    if shapes.is_union(kind):
        members = [_schema(member, definitions) for member in shapes.members(kind)]
        return members[0] if len(members) == 1 else {"anyOf": members}
    if shapes.is_value(kind):
        return dict(kind.SCHEMA)
    if shapes.is_choice(kind):
        return {"enum": [*shapes.choices(kind)]}
    if shapes.is_table(kind):
        return _reference(kind, definitions)
    if shapes.is_mapping(kind):
        return {"type": "object", "additionalProperties": _schema(get_args(kind)[1], definitions)}
    if shapes.is_array(kind):
        return {"type": "array", "items": _schema(get_args(kind)[0], definitions)}
    return {**_SCALARS[kind], **_limits(between)}


def _reference(table: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    # Two tiers may have a class of the same name.
    name = f"{table.__module__}.{table.__qualname__}"
    if name not in definitions:
        definitions[name] = {}  # a table that contains itself ends here
        definitions[name] = _object(table, definitions)
    reference = {"$ref": f"#/$defs/{name}"}
    short = shapes.shorthand(table)
    if short is None:
        return reference
    kinds = {key: kind for key, kind, _ in shapes.fields(table)}
    return {"anyOf": [_schema(kinds[short], definitions), reference]}


def _object(table: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required: list[str] = []
    for name, kind, attribute in shapes.fields(table):
        properties[name] = _schema(kind, definitions)
        default = shapes.default_of(attribute)
        if default is attrs.NOTHING:
            required.append(name)
        elif (written := written_default(default)) is not None:
            properties[name] = {**properties[name], "default": written}
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = required
    if table.__doc__:
        schema["description"] = table.__doc__.strip().splitlines()[0]
    return schema


def written_default(default: Any) -> Any:
    """A default as one would write it in JSON or TOML; None where absence is the only way to write it."""
    if default is None or (attrs.has(type(default)) and not shapes.is_value(type(default))):
        return None
    if isinstance(default, Mapping):
        return {name: written_default(item) for name, item in default.items()}
    if isinstance(default, tuple):
        return [written_default(item) for item in default]
    if isinstance(default, FilePath) or shapes.is_value(type(default)):
        return str(default)
    return getattr(default, "value", default)


def _limits(between: Between | None) -> dict[str, Any]:
    if between is None:
        return {}
    limits = {"minimum": between.low}
    if between.high < shapes.MAX_INT:
        limits["maximum"] = between.high
    return limits
