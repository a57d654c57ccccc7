"""What can be said to the console."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooler.console.grammar import Command, parse, statements
from pooler.errors import PeerError


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("SHOW POOLS", Command("SHOW", "pools")),
        ("  show\n  Stats_Totals ", Command("SHOW", "stats_totals")),
        ("pause", Command("PAUSE")),
        ('PAUSE "My ""DB"""', Command("PAUSE", 'My "DB"')),
        ("KILL_CLIENT 33554433", Command("KILL_CLIENT", "33554433")),
        ("SET application_name = 'x'", Command("SET", "application_name")),
        ("set session client_encoding TO 'UTF8'", Command("SET", "client_encoding")),
        ("RELOAD", Command("RELOAD")),
    ],
)
def test_commands_in_any_case(text: str, command: Command) -> None:
    assert parse(text) == command


@pytest.mark.parametrize("text", ["SHOW", "DISABLE", "RELOAD app", "SELECT 1", "PAUSE a b", "'", "*", "SET x"])
def test_what_is_no_command_is_a_syntax_error(text: str) -> None:
    with pytest.raises(PeerError) as caught:
        parse(text)
    assert (caught.value.sqlstate, caught.value.severity) == ("42601", "ERROR")


@pytest.mark.parametrize("text", ["SHUTDOWN", "SUSPEND", "shutdown wait_for_clients"])
def test_what_is_done_another_way_says_how(text: str) -> None:
    with pytest.raises(PeerError, match="not a command here"):
        parse(text)


def test_statements_end_at_semicolons_outside_of_quotes() -> None:
    assert [*statements("SHOW POOLS; PAUSE \"a;b\";; SET x = 'a;''b'; ")] == [
        "SHOW POOLS",
        'PAUSE "a;b"',
        "SET x = 'a;''b'",
    ]


@given(st.text())
def test_anything_is_a_command_or_a_peer_error(text: str) -> None:
    severities = []
    for statement in statements(text):
        try:
            parse(statement)
        except PeerError as error:
            severities.append(error.severity)
    assert {*severities} <= {"ERROR"}
