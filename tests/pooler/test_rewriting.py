"""SQL with the servers' names for prepared statements."""

from __future__ import annotations

from pooler.prepared import parsed
from pooler.rewriting import NOTHING, Session, rewrite
from pooler.sql import EVERY_PIN, Kind, Pin

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
    for text, refuses, code in ((b"PREPARE a AS SELECT 2", Pin.NONE, b"42P05"), (b"LISTEN c", EVERY_PIN, b"0A000")):
        found = rewrite(b"SELECT 1; " + text, session(refuses=refuses))
        assert found.sql == b'SELECT 1; EXECUTE "portway_"'
        assert code in found.steps[1].error


def test_a_listen_pins_its_client() -> None:
    (step,) = rewrite(b"LISTEN c", session()).steps
    assert step.act is not None
    assert (step.act.kind, step.act.makes) == (Kind.LISTEN, Pin.LISTEN)
