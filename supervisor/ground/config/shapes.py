"""The types a table may use, looked at once: which raw TOML values each takes, and what it is called.

Structuring, the JSON Schema and the documentation all ask here, so that they can't tell different stories.

A field's type is one of: str, int, float, bool, pathlib.Path, a Literal of strings, an Enum with string values, a value
type (values.py), a table (an attrs class), `tuple[X, ...]`, `Mapping[str, X]`, a union of these, or any of them as
`Annotated[X, Between(...)]`.
"""

from __future__ import annotations

import collections.abc
import datetime
import types
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import attrs

# Integers without a range of their own: what a double, and so every JSON reader of the status, holds exactly.
MAX_INT = (1 << 53) - 1

_RAW_NAMES: dict[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    str: "a string",
    list: "an array",
    dict: "a table",
    datetime.datetime: "a date",
    datetime.date: "a date",
    datetime.time: "a time",
}


@attrs.frozen
class Between:
    """A range for a number, both ends included: `weight: Annotated[int, Between(1, 256)] = 1`."""

    low: float
    high: float = MAX_INT


def name_of(raw: object) -> str:
    """What a TOML value is called in a message."""
    return _RAW_NAMES.get(type(raw), "a value")


def strip(kind: Any) -> tuple[Any, Between | None]:
    """A type without its Annotated, and the range that stood there."""
    if get_origin(kind) is Annotated:
        base, *notes = get_args(kind)
        return base, next((note for note in notes if isinstance(note, Between)), None)
    return kind, None


def is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def members(kind: Any) -> list[Any]:
    """The members of a union without None: TOML has no null, an absent key is how None is written."""
    return [member for member in get_args(kind) if member is not types.NoneType]


def is_value(kind: Any) -> bool:
    return hasattr(kind, "from_config")


def is_table(kind: Any) -> bool:
    return isinstance(kind, type) and attrs.has(kind) and not is_value(kind)


def is_mapping(kind: Any) -> bool:
    return get_origin(kind) in (collections.abc.Mapping, dict)


def is_array(kind: Any) -> bool:
    return get_origin(kind) is tuple


def is_choice(kind: Any) -> bool:
    return get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, Enum))


def choices(kind: Any) -> dict[str, Any]:
    """The words of a Literal or an Enum, each with the value it stands for."""
    if get_origin(kind) is Literal:
        return {word: word for word in get_args(kind)}
    return {member.value: member for member in kind}


def shorthand(kind: Any) -> str | None:
    """The key that a table written as a bare string fills: `"127.0.0.1:80"` for `{ address = "127.0.0.1:80" }`."""
    return getattr(kind, "SHORTHAND", None)


def raw_types(kind: Any) -> tuple[type, ...]:
    """The TOML types that a type takes."""
    kind, _ = strip(kind)
    if is_union(kind):
        return tuple({raw for member in members(kind) for raw in raw_types(member)})
    if is_value(kind):
        return typing.cast("tuple[type, ...]", kind.RAW)
    if is_choice(kind) or kind is FilePath:
        return (str,)
    if is_table(kind):
        return (dict, str) if shorthand(kind) else (dict,)
    if is_mapping(kind):
        return (dict,)
    if is_array(kind):
        return (list,)
    if kind is float:
        return (float, int)
    if kind in (str, int, bool):
        return (kind,)
    raise TypeError(f"{kind!r} is no type for a key of the configuration")


def describe(kind: Any) -> str:
    """What a type is called in a message and in the documentation."""
    kind, between = strip(kind)
    if is_union(kind):
        return " or ".join(dict.fromkeys(describe(member) for member in members(kind)))
    if is_value(kind):
        return typing.cast("str", kind.DESCRIPTION)
    if is_choice(kind):
        words = [f'"{word}"' for word in choices(kind)]
        return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
    if is_table(kind):
        return "a string or a table" if shorthand(kind) else "a table"
    if is_mapping(kind):
        return "a table"
    if is_array(kind):
        return "an array"
    if kind is FilePath:
        return "a path"
    name = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}[kind]
    return f"{name} {describe_range(between)}" if between else name


def describe_range(between: Between) -> str:
    """A range in words, without the noun."""
    if between.high >= MAX_INT:
        return f"of at least {show_number(between.low)}"
    return f"from {show_number(between.low)} to {show_number(between.high)}"


def show_number(number: float) -> str:
    """A number as people write it: never 1e+06."""
    return f"{number:.0f}" if number == int(number) else f"{number:g}"


def fields(table: Any) -> Iterator[tuple[str, Any, attrs.Attribute[Any]]]:
    """Every key of a table: its name in TOML, its type with Annotated kept, its attribute.

    A key that is a word of Python's is written with an underscore behind it in the class.
    """
    hints = typing.get_type_hints(table, include_extras=True)
    for attribute in attrs.fields(table):
        if attribute.init:
            yield attribute.name.rstrip("_"), hints[attribute.name], attribute


def default_of(attribute: attrs.Attribute[Any]) -> Any:
    """The default of a key; attrs.NOTHING when it is required."""
    default: Any = attribute.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # attrs types its Factory as a function
        return default.factory()
    return default
