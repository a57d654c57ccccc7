"""The cheap look: no statement that matters passes it."""

from __future__ import annotations

import pytest

from pooler import glance
from pooler.glance import concerns
from pooler.sql import acts
from tests.pooler.test_sql import MADE, NAMED, SETTINGS

MATTERS = [text for text in (*SETTINGS, *NAMED, *MADE) if not all(act.plain for act in acts(text))]


@pytest.mark.parametrize("text", MATTERS)
def test_what_matters_is_seen(text: bytes) -> None:
    for spelled in (text, text.lower(), text.upper(), b" " + text, b"/* why */" + text, b"SELECT 1;" + text):
        assert concerns(spelled + b"\0", several=True)
        assert concerns(spelled + b"\0", several=False) or b";" in spelled


@pytest.mark.parametrize(
    "text", [b"", b"SELECT 1", b"select 1;", b"INSERT INTO t VALUES (1)", b"BEGIN", b"commit;", b"COPY t FROM STDIN"]
)
def test_ordinary_statements_pass(text: bytes) -> None:
    assert not concerns(text + b"\0", several=True)


def test_texts_that_differ_in_their_numbers_are_remembered_as_one() -> None:
    assert not concerns(b"SELECT 17 FROM t2\0", several=True)
    remembered = len(glance._passed)
    for number in range(10, 90):
        assert not concerns(b"SELECT %d FROM t7\0" % number, several=True)
    assert len(glance._passed) == remembered
