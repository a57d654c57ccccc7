"""The console as a client of it sees it: who may come in, what it answers by which protocol."""

from __future__ import annotations

import pytest

from pooler.messages import message, query
from tests.pooler.console.operator import POOLER, Make, console


def test_the_greeting_says_that_it_is_no_postgres(stage: Make) -> None:
    playing = stage(pooler=POOLER)
    for database in ("pgbouncer", "portway"):
        player = playing.client(log_in=False)
        assert player.log_in(database=database)["server_version"].endswith("/portway")
    assert not playing.postgres.backends


def test_who_is_on_no_list_does_not_come_in(stage: Make) -> None:
    player = stage().client(log_in=False)
    body = b"\0\x03\0\0user\0app\0database\0pgbouncer\0\0"
    player.send((len(body) + 4).to_bytes(4, "big") + body)
    assert player.error()["C"] == "28000"


def test_a_database_of_that_name_goes_first(stage: Make) -> None:
    playing = stage(database='pool_size = 1\n[pooler.databases.pgbouncer]\nprimary = "pg"')
    player = playing.client(log_in=False)
    assert player.log_in(database="pgbouncer")["server_version"] == "15.1"


def test_who_may_look_may_not_change(stage: Make) -> None:
    looking = console(stage(pooler=POOLER), user="other")
    assert looking.rows("SHOW VERSION") == [{"version": looking.rows("SHOW VERSION")[0]["version"]}]
    assert looking.refused("PAUSE")["C"] == "42501"


def test_everything_that_can_be_shown_has_its_columns(stage: Make) -> None:
    playing = stage(pooler=POOLER)
    playing.client().ask("BEGIN")
    asked = console(playing)
    for what in ("POOLS", "DATABASES", "USERS", "STATS", "STATS_TOTALS", "STATS_AVERAGES", "TOTALS", "LISTS", "CONFIG",
                 "VERSION", "STATE", "MEM", "CLIENTS", "SERVERS", "SOCKETS", "HOLDERS"):  # fmt: skip
        assert asked.rows(f"SHOW {what};"), what
    for what in ("DNS_HOSTS", "DNS_ZONES", "PEERS", "PEER_POOLS"):
        assert asked.rows(f"SHOW {what};") == []
    asked.send(query("SHOW HELP"))
    assert asked.kinds() == "NCI"
    assert asked.refused("SHOW nosuch")["C"] == "42601"
    assert asked.rows("SHOW server_encoding") == [{"server_encoding": "UTF8"}]
    asked.send(query("SET application_name TO 'x'"))
    assert asked.kinds() == "CI"
    assert asked.refused("SET pool_size = 5")["C"] == "0A000"


@pytest.mark.parametrize("piece", [1, 1 << 16])
def test_the_extended_protocol_through_the_session(stage: Make, piece: int) -> None:
    asked = console(stage(pooler=POOLER))
    batch = message(b"P", b"\0SHOW VERSION\0\0\0") + message(b"B", b"\0\0" + bytes(6)) + message(b"D", b"P\0")
    asked.send(batch + message(b"E", b"\0" + bytes(4)) + message(b"S"), piece)
    assert asked.kinds() == "12TDCI"
    asked.send(message(b"X"), piece)
    assert asked.ended
