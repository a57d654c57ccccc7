"""Parameters: sets of values that are shared, and what has to be set before a server changes hands."""

from __future__ import annotations

import gc

from pooler import parameters
from pooler.parameters import changed, differences, intern, set_statement, settable


def test_equal_values_are_one_object() -> None:
    assert intern({"a": "1", "b": "2"}) is intern({"b": "2", "a": "1"})
    assert intern({"a": "1"}) is not intern({"a": "2"})


def test_values_that_nobody_has_are_forgotten() -> None:
    gc.collect()
    before = len(parameters._interned)
    kept = [intern({"a": str(number)}) for number in range(10)]
    assert len(parameters._interned) == before + 10
    del kept
    gc.collect()
    assert len(parameters._interned) == before


def test_a_change_makes_another_and_none_the_same() -> None:
    values = intern({"TimeZone": "UTC"})
    assert changed(values, {"TimeZone": "UTC"}) is values
    assert changed(changed(values, {"TimeZone": "CET"}), {"TimeZone": "UTC"}) is values


def test_only_what_a_session_can_set_moves_with_it() -> None:
    reported = {"server_version": "15.1", "TimeZone": "UTC", "is_superuser": "on", "session_authorization": "app"}
    assert settable(reported) == {"TimeZone": "UTC", "session_authorization": "app"}


def test_differences_are_what_the_client_has_otherwise() -> None:
    wanted, current = intern({"a": "1", "b": "2"}), intern({"a": "1", "b": "3", "c": "4"})
    assert differences(wanted, current) == {"b": "2", "c": None}
    assert differences(wanted, current, intern({"c": "5"})) == {"b": "2", "c": "5"}
    assert differences(wanted, current, intern({"c": "4"})) == {"b": "2"}
    assert not differences(current, current)


def test_values_are_quoted_so_that_they_end_nowhere() -> None:
    statement = set_statement({"application_name": "o'\\brien", "TimeZone": "UTC"})
    assert statement == (
        "SELECT pg_catalog.set_config(E'application_name',E'o''\\\\brien',false),"
        "pg_catalog.set_config(E'TimeZone',E'UTC',false)"
    )


def test_what_is_not_set_is_reset_and_a_role_comes_last() -> None:
    statement = set_statement({"role": "bob", "app.x": None, "work_mem": "1MB"})
    assert statement == (
        'RESET "role";RESET "app"."x";'
        "SELECT pg_catalog.set_config(E'work_mem',E'1MB',false),pg_catalog.set_config(E'role',E'bob',false)"
    )
    assert set_statement({"geqo": None}) == 'RESET "geqo"'


def test_a_greeting_has_a_message_for_each() -> None:
    assert parameters.greeting({"a": "1", "b": ""}) == b"S\0\0\0\x08a\x001\0S\0\0\0\x07b\0\0"
