"""SQL with the servers' names for prepared statements."""

from __future__ import annotations

import attrs

from pooler.prepared import parsed
from pooler.rewriting import NOTHING, Session, rewrite
from pooler.sql import EVERY_PIN, Pin

A = parsed(b"SELECT 1", b"\0\0", b"")


def session(refuses: Pin = Pin.NONE) -> Session:
    return Session({b"a": A}, b"", refuses)


def test_ordinary_statements_stay_as_they_are() -> None:
    found = rewrite(b"BEGIN; SELECT 1", session())
    assert (found.sql, found.steps, found.control) == (b"BEGIN; SELECT 1", (), True)


def test_names_are_those_of_the_server() -> None:
    found = rewrite(b"EXECUTE a (1); EXPLAIN EXECUTE a; EXECUTE other", session())
    assert found.sql == b"EXECUTE %s (1); EXPLAIN EXECUTE %s; EXECUTE other" % (A.name, A.name)
    assert found.needs == (A, A)


def test_what_is_prepared_here_is_known_behind() -> None:
    found = rewrite(b"PREPARE b AS SELECT 2; EXECUTE b; DEALLOCATE b; EXECUTE b", session())
    (made,) = found.anew
    assert found.sql == b"PREPARE %s AS SELECT 2; EXECUTE %s; %s; EXECUTE b" % (made.name, made.name, NOTHING)
    assert not found.needs
    assert [step.tag for step in found.steps] == [b"", b"", b"DEALLOCATE", b""]


def test_what_is_taken_or_refused_fails_where_it_stands() -> None:
    for text, refuses, code in (
        (b"PREPARE a AS SELECT 2", Pin.NONE, b"42P05"),
        (b"CREATE TEMP TABLE t (n int)", EVERY_PIN, b"0A000"),
    ):
        found = rewrite(b"SELECT 1; " + text, session(refuses=refuses))
        assert found.sql == b'SELECT 1; EXECUTE "portway_"'
        assert code in found.steps[1].error


def test_a_listen_is_marked_and_answered_by_its_own_tag() -> None:
    found = rewrite(b"LISTEN c; UNLISTEN c; SELECT 1; UNLISTEN *", session())
    marks = [step.mark for step in found.steps]
    assert found.sql == b"LISTEN %s; LISTEN %s; SELECT 1; LISTEN %s" % (marks[0], marks[1], marks[3])
    assert len(set(marks)) == 4
    assert [step.tag for step in found.steps] == [b"LISTEN", b"UNLISTEN", b"", b"UNLISTEN"]


def test_an_unlisten_of_who_never_listened_costs_nothing() -> None:
    text = b"SELECT pg_advisory_unlock_all(); UNLISTEN *; UNLISTEN a"
    found = rewrite(text, attrs.evolve(session(), listens=False))
    assert found.sql == text
    assert all(step.act is not None and step.act.plain for step in found.steps[1:])
    assert b"UNLISTEN" not in rewrite(b"LISTEN a; UNLISTEN a", attrs.evolve(session(), listens=False)).sql


def test_a_name_that_only_the_server_can_read_is_refused() -> None:
    found = rewrite(b'LISTEN U&"d\\0061t"', session())
    assert found.sql == b'EXECUTE "portway_"'
    assert b"0A000" in found.steps[0].error
