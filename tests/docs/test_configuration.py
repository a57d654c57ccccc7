"""docs/configuration.md lists every key with its type and default, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import attrs

from supervisor.cli.tables import TABLES
from supervisor.ground.config import Secret, shapes
from supervisor.ground.config.load import tables_of
from supervisor.ground.config.schema import written_default

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"

_HEADING = re.compile(r"^#+ `\[(.+)\]`", re.MULTILINE)
_ROW = re.compile(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)


def expected() -> dict[str, dict[str, tuple[str, str]]]:
    """Section to key to type and default, from the tables."""
    sections: dict[str, dict[str, tuple[str, str]]] = {}
    for name, kind in tables_of(TABLES).items():
        for section, key, written in _rows(kind, name):
            sections.setdefault(section, {})[key] = written
    return sections


def _rows(kind: Any, path: str) -> Iterator[tuple[str, str, tuple[str, str]]]:
    kind, _ = shapes.strip(kind)
    if shapes.is_union(kind):
        for member in shapes.members(kind):
            yield from _rows(member, path)
    elif shapes.is_mapping(kind):
        yield from _rows(get_args(kind)[1], f"{path}.NAME")
    elif shapes.is_array(kind):
        yield from _rows(get_args(kind)[0], path)
    elif shapes.is_table(kind):
        for name, field, attribute in shapes.fields(kind):
            if not _holds_tables(field):
                yield path, name, (_type(field), _default(attribute))
            elif not shapes.is_mapping(field):
                yield path, name, (_type(field), _default(attribute))
                yield from _rows(field, f"{path}.{name}")
            else:
                yield from _rows(field, f"{path}.{name}")


def _holds_tables(kind: Any) -> bool:
    return any(True for _ in _rows(kind, ""))


def _type(kind: Any) -> str:
    kind, between = shapes.strip(kind)
    if shapes.is_union(kind):
        return " or ".join(_type(member) for member in shapes.members(kind))
    if shapes.is_array(kind):
        return f"array: {_type(get_args(kind)[0])}"
    if shapes.is_mapping(kind):
        return f"table: {_type(get_args(kind)[1])}"
    if shapes.is_choice(kind):
        return ", ".join(f'`"{word}"`' for word in shapes.choices(kind))
    if shapes.is_table(kind):
        return "string or table" if shapes.shorthand(kind) else "table"
    if isinstance(kind, type) and issubclass(kind, Secret):
        return "secret"
    text = f"{shapes.describe(kind)} {shapes.describe_range(between)}" if between else shapes.describe(kind)
    return re.sub(r"^(an?|the) ", "", text.split(" such as ")[0])


def _default(attribute: attrs.Attribute[Any]) -> str:
    default = shapes.default_of(attribute)
    if default is attrs.NOTHING:
        return "required"
    written = written_default(default)
    if written is None or written in ([], {}, ""):
        return "–"
    if isinstance(written, dict):
        return "`{ " + ", ".join(f'{name} = "{item}"' for name, item in written.items()) + " }`"
    if isinstance(written, list):
        return "`[" + ", ".join(f'"{item}"' for item in written) + "]`"
    return f"`{str(written).lower()}`" if isinstance(written, (bool, int, float)) else f'`"{written}"`'


def documented() -> dict[str, dict[str, tuple[str, str]]]:
    """The same from the document."""
    text = DOCUMENT.read_text()
    headings = [*_HEADING.finditer(text)]
    ends = [*(heading.start() for heading in headings[1:]), len(text)]
    return {
        heading[1]: {row[1]: (row[2], row[3]) for row in _ROW.finditer(text, heading.end(), end)}
        for heading, end in zip(headings, ends, strict=True)
    }


def test_every_key_is_documented_with_its_type_and_its_default() -> None:
    assert documented() == expected()
