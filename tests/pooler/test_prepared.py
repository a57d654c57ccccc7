"""Shared names, and what a server connection has of them."""

from __future__ import annotations

from pooler.prepared import PREFIX, ServerStatements, by_sql, closing, parsed


def test_a_name_is_its_content() -> None:
    one = parsed(b"SELECT $1", b"\0\0", b"")
    assert one is parsed(b"SELECT $1", b"\0\0", b"")
    others = [
        parsed(b"SELECT $1", b"\0\1\0\0\0\x17", b""),
        parsed(b"SELECT $1", b"\0\0", b"other_schema"),
        parsed(b"SELECT $1 ", b"\0\0", b""),
        by_sql(b"AS SELECT $1", b""),
    ]
    names = {one.name, *(other.name for other in others)}
    assert len(names) == 5
    assert all(name.startswith(PREFIX) for name in names)
    assert one.preparing == b"P\0\0\0\x38"[:4] + bytes([len(one.name) + 17]) + one.name + b"\0SELECT $1\0\0\0"


def test_the_least_recently_used_goes() -> None:
    statements = ServerStatements()
    assert [statements.add(name, 2) for name in (b"a", b"b")] == [[], []]
    assert statements.use(b"a")
    assert not statements.use(b"c")
    assert statements.add(b"c", 2) == [b"b"]
    assert list(statements.names) == [b"a", b"c"]


def test_one_that_is_doubted_is_made_anew() -> None:
    statements = ServerStatements({b"a": True})
    statements.doubt()
    assert not statements.use(b"a")
    assert statements.add(b"a", 2) == [b"a"]
    assert statements.use(b"a")


def test_a_close_names_what_it_closes() -> None:
    assert closing(b"a") == b"C\0\0\0\x07Sa\0"
