"""What statements may have done, by itself: what is to be asked afterwards, and what a client is told of a RESET."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pooler.journal import Journal, reasons
from pooler.messages import parameter_status
from pooler.sql import Pin, acts


def fresh(base: dict[str, str] | None = None, pins: Pin = Pin.NONE, **settings: str) -> Journal:
    """Of a client that began with `base`, has `pins` and these settings by now."""
    client: Any = SimpleNamespace(base=base or {}, settings={**(base or {}), **settings}, pins=pins, unsettled=False)
    return Journal(client)


def run(journal: Journal, *texts: bytes, certain: bool = True) -> bytes:
    """A batch of statements; what the client is told before it hears that it is over."""
    for text in texts:
        for act in acts(text):
            journal.note(act)
    return journal.end_batch(certain)


@pytest.mark.parametrize(
    ("batch", "certain", "asked"),
    [
        ([b"SET work_mem = 1"], True, ["work_mem"]),
        ([b"SET work_mem = 1; SET geqo = off"], True, ["geqo", "work_mem"]),
        ([b"SET Work_Mem = 1", b"SET work_mem = 2"], True, ["work_mem"]),
        ([b"SET work_mem = 1", b"RESET work_mem"], True, []),
        ([b"RESET work_mem", b"SET work_mem = 1"], True, ["work_mem"]),
        ([b"RESET work_mem"], False, ["work_mem"]),  # it may have been rolled back: then the old value counts
        ([b"SET work_mem = 1", b"RESET ALL"], True, []),
        ([b"RESET ALL"], False, ["geqo"]),  # all that the client has set may have been brought back
    ],
)
def test_what_the_server_is_asked_for(batch: list[bytes], certain: bool, asked: list[str]) -> None:
    journal = fresh(geqo="on")
    run(journal, *batch, certain=certain)
    assert journal.question(()) == (asked, [])
    assert journal.client.unsettled


def test_nobody_asks_for_what_the_server_reports() -> None:
    journal = fresh()
    run(journal, b"SET timezone = 'UTC'; SET work_mem = 1")
    assert journal.question({"TimeZone"})[0] == ["work_mem"]
    assert journal.question({"TimeZone", "work_mem"})[0] == []


def test_a_reset_that_is_certain_is_known_without_asking() -> None:
    journal = fresh()
    run(journal, b"RESET work_mem")
    assert (journal.dropped, journal.question(())) == ({"work_mem"}, ([], []))
    run(journal, b"SET work_mem = 1")
    assert (journal.dropped, journal.question(())) == (set(), (["work_mem"], []))


def test_a_batch_speaks_for_itself_alone() -> None:
    """What an earlier one may have done is not forgotten, and not done again."""
    journal = fresh()
    run(journal, b"SET work_mem = 1", certain=False)
    run(journal, b"SELECT 1")
    assert journal.question(())[0] == ["work_mem"]
    run(journal, b"RESET work_mem")
    assert journal.question(())[0] == []
    run(journal)
    assert journal.question(())[0] == []


BEGAN = {"application_name": "mine", "geqo": "off"}


@pytest.mark.parametrize("text", [b"RESET application_name", b"RESET ALL", b"DISCARD ALL"])
def test_a_reset_tells_the_client_what_it_began_with(text: bytes) -> None:
    """PostgreSQL tells of its own first value; and of what it never reports, nobody tells."""
    assert run(fresh(BEGAN), text) == parameter_status("application_name", "mine")


@pytest.mark.parametrize("text", [b"RESET geqo", b"RESET DateStyle", b"SET application_name = 'other'", b"SELECT 1"])
def test_others_tell_it_nothing(text: bytes) -> None:
    assert run(fresh(BEGAN), text) == b""


@pytest.mark.parametrize("text", [b"RESET application_name", b"RESET ALL", b"DISCARD ALL"])
def test_what_may_be_taken_back_tells_it_nothing_yet(text: bytes) -> None:
    assert run(fresh(BEGAN), text, certain=False) == b""


@pytest.mark.parametrize(
    ("text", "held", "looked_for"),
    [
        (b"CREATE TEMP TABLE t (a int)", Pin.NONE, [Pin.TEMPORARY_TABLE]),
        (b"SELECT pg_advisory_lock(1)", Pin.NONE, [Pin.ADVISORY_LOCK]),
        (b"DECLARE c CURSOR WITH HOLD FOR SELECT 1", Pin.NONE, [Pin.HELD_CURSOR]),
        (b"DISCARD ALL", Pin.NONE, []),
        (b"DISCARD ALL", Pin.TEMPORARY_TABLE | Pin.ADVISORY_LOCK, [Pin.TEMPORARY_TABLE, Pin.ADVISORY_LOCK]),
        (b"SELECT pg_advisory_unlock(1)", Pin.NONE, []),  # there was none
        (b"SELECT pg_advisory_unlock(1)", Pin.ADVISORY_LOCK, [Pin.ADVISORY_LOCK]),
        (b"SELECT 1", Pin.ADVISORY_LOCK, []),
    ],
)
def test_pins_are_looked_for_where_they_may_have_come_or_gone(text: bytes, held: Pin, looked_for: list[Pin]) -> None:
    journal = fresh(pins=held)
    run(journal, text, certain=False)
    assert journal.question(())[1] == looked_for


def test_nothing_is_left_of_it_once_all_is_known() -> None:
    journal = fresh(BEGAN, pins=Pin.TEMPORARY_TABLE)
    run(journal, b"SET work_mem = 1; RESET geqo; DISCARD ALL; CREATE TEMP TABLE t (a int)")
    for act in acts(b"SET later = 1"):
        journal.note(act)
    journal.clear()
    assert not journal.client.unsettled
    assert run(journal) == b""
    assert journal.question(()) == ([], [])


def test_the_reasons_are_words() -> None:
    assert reasons(Pin.NONE) == ""
    assert reasons(Pin.TEMPORARY_TABLE | Pin.HELD_CURSOR) == "temporary table, cursor with hold"
