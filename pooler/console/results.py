"""Results as they go over the wire: columns of three types, in text and in binary.

Source: PostgreSQL 55.7 "Message Formats" (RowDescription, DataRow, CommandComplete) and pg_type for the type numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct

import attrs

from pooler.messages import message

TEXT, INT4, INT8 = 25, 23, 20
_WIDTHS = {TEXT: -1, INT4: 4, INT8: 8}
_FIELD = Struct(">IHIhiH")  # table, column, type, width, modifier, format
_MAX_INT4, _MAX_INT8 = (1 << 31) - 1, (1 << 63) - 1

Cell = str | int | None
Row = Sequence[Cell]


@attrs.frozen
class Column:
    """Its name, and one of the three types."""

    name: str
    type: int = TEXT


@attrs.frozen
class Result:
    """What a command has brought. Without columns it brings no rows, and says `tag` alone; `before` goes ahead of
    it."""

    tag: str
    columns: Sequence[Column] = ()
    rows: Sequence[Row] = ()
    before: bytes = b""


def columns(text: str) -> tuple[Column, ...]:
    """From `"name count:4 bytes:8"`: a type is the width of an integer, or text."""
    types = {"": TEXT, "4": INT4, "8": INT8}
    return tuple(Column(name, types[kind]) for name, _, kind in (word.partition(":") for word in text.split()))


def row_description(columns: Sequence[Column], formats: Sequence[int] = ()) -> bytes:
    """`formats` is as in a Bind: none for text, one for all, or one for each."""
    body = len(columns).to_bytes(2, "big")
    for number, column in enumerate(columns):
        form = format_of(formats, number)
        body += column.name.encode() + b"\0" + _FIELD.pack(0, 0, column.type, _WIDTHS[column.type], -1, form)
    return message(b"T", body)


def data_rows(columns: Sequence[Column], rows: Iterable[Row], formats: Sequence[int] = ()) -> bytes:
    """Rows one behind another."""
    forms = [format_of(formats, number) for number in range(len(columns))]
    return b"".join(_data_row(columns, row, forms) for row in rows)


def complete(tag: str) -> bytes:
    """CommandComplete."""
    return message(b"C", tag.encode() + b"\0")


def format_of(formats: Sequence[int], number: int) -> int:
    """0 is text, 1 binary."""
    return 0 if not formats else formats[0] if len(formats) == 1 else formats[number]


def _data_row(columns: Sequence[Column], row: Row, forms: Sequence[int]) -> bytes:
    parts = [len(columns).to_bytes(2, "big")]
    for column, value, form in zip(columns, row, forms, strict=True):
        if value is None:
            parts.append(b"\xff\xff\xff\xff")
            continue
        if column.type == TEXT:
            data = str(value).replace("\0", "").encode("utf-8", "replace")
        else:
            number = min(int(value), _MAX_INT4 if column.type == INT4 else _MAX_INT8)
            data = number.to_bytes(_WIDTHS[column.type], "big", signed=True) if form else str(number).encode()
        parts.append(len(data).to_bytes(4, "big") + data)
    return message(b"D", b"".join(parts))
