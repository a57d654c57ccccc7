"""What statements do to the session that runs them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooler.sql import Kind, Pin, acts

SETTINGS = {
    b"SET x = 1": (Kind.SET, ("x",)),
    b"SET SESSION App.Tenant TO 'a'": (Kind.SET, ("app.tenant",)),
    b"SET session_replication_role = replica": (Kind.SET, ("session_replication_role",)),
    b"SET SESSION AUTHORIZATION bob": (Kind.SET, ("session_authorization", "role")),
    b"SET ROLE bob": (Kind.SET, ("role",)),
    b"SET TIME ZONE 'UTC'": (Kind.SET, ("timezone",)),
    b"SET NAMES 'latin1'": (Kind.SET, ("client_encoding",)),
    b"SET SCHEMA 'a'": (Kind.SET, ("search_path",)),
    b"SET x TO DEFAULT": (Kind.RESET, ("x",)),
    b"RESET x": (Kind.RESET, ("x",)),
    b"RESET ALL": (Kind.RESET_ALL, ()),
    b"SET LOCAL x = 1": (Kind.PLAIN, ()),
    b"SET CONSTRAINTS ALL DEFERRED": (Kind.PLAIN, ()),
    b"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE": (Kind.PLAIN, ()),
    b"SET transaction_isolation = 'serializable'": (Kind.PLAIN, ()),
    b"SELECT set_config('A.b', $1, false), set_config('c', 'x', true)": (Kind.SET, ("a.b", "c")),
    b"SELECT set_config($1, $2, true)": (Kind.PLAIN, ()),
}
NAMED = {
    b"PREPARE a (int) AS SELECT $1": (Kind.PREPARE, b"a"),
    b'EXECUTE "A"(1)': (Kind.EXECUTE, b"A"),
    b"EXPLAIN (ANALYZE) EXECUTE a": (Kind.EXECUTE, b"a"),
    b"CREATE TABLE t AS EXECUTE a": (Kind.EXECUTE, b"a"),
    b"DEALLOCATE PREPARE a": (Kind.DEALLOCATE, b"a"),
    b"DEALLOCATE prepare": (Kind.DEALLOCATE, b"prepare"),
    b"LISTEN c": (Kind.LISTEN, b"c"),
    b"UNLISTEN C": (Kind.UNLISTEN, b"c"),
    b"CREATE TRIGGER t BEFORE INSERT ON x EXECUTE FUNCTION f()": (Kind.PLAIN, b""),
    b"PREPARE TRANSACTION 'x'": (Kind.CONTROL, b""),
    b"DEALLOCATE ALL": (Kind.DEALLOCATE_ALL, b""),
    b"DISCARD ALL": (Kind.DISCARD_ALL, b""),
    b"UNLISTEN *": (Kind.UNLISTEN_ALL, b""),
    b"BEGIN": (Kind.CONTROL, b""),
}
MADE = {
    b"CREATE TEMP TABLE t (n int)": Pin.TEMPORARY_TABLE,
    b"CREATE TEMP TABLE t (n int) ON COMMIT DROP": Pin.NONE,
    b"CREATE OR REPLACE TEMPORARY VIEW v AS SELECT 1": Pin.TEMPORARY_TABLE,
    b"SELECT 1 INTO TEMP t": Pin.TEMPORARY_TABLE,
    b"SELECT pg_advisory_lock(1)": Pin.ADVISORY_LOCK,
    b"SELECT PG_TRY_ADVISORY_LOCK_SHARED(1)": Pin.ADVISORY_LOCK,
    b"SELECT pg_advisory_xact_lock(1)": Pin.NONE,
    b"DECLARE c CURSOR WITH HOLD FOR SELECT 1": Pin.HELD_CURSOR,
    b"DECLARE c CURSOR FOR SELECT 1": Pin.NONE,
    b"SELECT set_config($1, $2, false)": Pin.SETTING,
}


@pytest.mark.parametrize(("text", "expected"), SETTINGS.items())
def test_settings(text: bytes, expected: tuple[Kind, tuple[str, ...]]) -> None:
    (act,) = acts(text)
    assert (act.kind, act.parameters) == expected


@pytest.mark.parametrize(("text", "expected"), NAMED.items())
def test_what_is_named(text: bytes, expected: tuple[Kind, bytes]) -> None:
    (act,) = acts(text)
    assert (act.kind, act.name) == expected
    assert text[act.name_at : act.name_end].strip(b'"').lower() == act.name.lower()


@pytest.mark.parametrize(("text", "made"), MADE.items())
def test_what_stays(text: bytes, made: Pin) -> None:
    (act,) = acts(text)
    assert act.makes == made


def test_what_a_driver_sends_when_it_gives_a_connection_back() -> None:
    found = acts(b"SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;")
    assert [act.kind for act in found] == [Kind.PLAIN, Kind.PLAIN, Kind.UNLISTEN_ALL, Kind.RESET_ALL]
    assert [act.lifts for act in found] == [Pin.ADVISORY_LOCK, Pin.HELD_CURSOR, Pin.NONE, Pin.NONE]


WORDS = [*SETTINGS, *NAMED, *MADE, b";", b"'", b'"', b"$$", b"/*", b"(", b"set", b"session", b".", b"execute", b"as"]


@given(st.lists(st.sampled_from(WORDS), max_size=5).map(b" ".join))
def test_property_nothing_escapes(text: bytes) -> None:
    for act in acts(text):
        assert 0 <= act.start <= act.name_at or not act.name
        assert act.start < act.end <= len(text)
