"""PostgreSQL's encodings by Python's names."""

from __future__ import annotations

import pytest

from pooler.encodings import codec, recoded


@pytest.mark.parametrize(
    ("client", "server", "found"),
    [
        ("UTF8", "UTF8", None),
        ("UTF8", "LATIN1", None),
        ("LATIN1", "UTF8", "iso8859-1"),
        ("WIN1252", "UTF8", "cp1252"),
        ("KOI8R", "UTF8", "koi8-r"),
        ("ISO_8859_5", "UTF8", "iso8859-5"),
        ("EUC_JP", "UTF8", "euc_jp"),
        ("SQL_ASCII", "UTF8", None),  # gets what the server has
        ("SQL_ASCII", "LATIN2", "iso8859-2"),
        ("LATIN1", "SQL_ASCII", None),  # nobody converts
        ("MULE_INTERNAL", "UTF8", "ascii"),
    ],
)
def test_what_text_is_to_a_client(client: str, server: str, found: str | None) -> None:
    assert codec(client, server) == found


def test_what_cannot_be_said_is_a_question_mark() -> None:
    assert recoded("größe €".encode(), None, "latin-1") == "größe ?".encode("latin-1")
    assert recoded("größe".encode("latin-1"), "latin-1", None) == "größe".encode()
    assert recoded(b"\xff", None, None) == b"\xff"
    assert recoded(b"plain", "no such codec", "nor this") == b"plain"
