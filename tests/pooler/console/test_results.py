"""Rows on the wire."""

from __future__ import annotations

from pooler.console.results import INT4, INT8, TEXT, columns, complete, data_rows, row_description

THREE = columns("name count:4 bytes:8")


def test_columns_have_their_types() -> None:
    assert [(column.name, column.type) for column in THREE] == [("name", TEXT), ("count", INT4), ("bytes", INT8)]


def test_a_row_in_text_and_in_binary() -> None:
    row = ("a", 7, None)
    head = b"D\0\0\0\x14\0\x03\0\0\0\x01a"
    assert data_rows(THREE, [row]) == head + b"\0\0\0\x017" + b"\xff\xff\xff\xff"
    assert data_rows(THREE, [row], [1]) == b"D\0\0\0\x17" + head[5:] + b"\0\0\0\x04\0\0\0\x07" + b"\xff\xff\xff\xff"
    assert data_rows(THREE, [row], [0, 1, 0]) == data_rows(THREE, [row], [1])


def test_a_count_beyond_its_width_is_the_largest() -> None:
    assert data_rows(columns("n:4"), [(1 << 40,)]).endswith(b"2147483647")


def test_the_description_names_types_and_formats() -> None:
    assert row_description(columns("n:4"), [1]) == (
        b"T\0\0\0\x1a\0\x01n\0" + bytes(6) + b"\0\0\0\x17\0\x04\xff\xff\xff\xff\0\x01"
    )
    assert complete("SHOW") == b"C\0\0\0\x09SHOW\0"
