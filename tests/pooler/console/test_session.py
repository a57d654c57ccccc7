"""The console as a client of it sees it, in one worker; the others are played by the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pooler.console import sockets
from pooler.errors import decode
from pooler.messages import message, query
from pooler.orders import Ask, Kill, Told
from supervisor.ground.orders import Reloaded, ReloadWanted
from supervisor.plane.layout import ProcessState
from tests.pooler.stage import Player, Stage

Make = Callable[..., Stage]

POOLER = 'admin_users = ["app"]\nstats_users = ["other"]'


class Console(Player):
    """A client of the console."""

    def rows(self, sql: str) -> list[dict[str, Any]]:
        self.send(query(sql))
        return self.taken()

    def taken(self) -> list[dict[str, Any]]:
        names: list[str] = []
        found = []
        for kind, payload in self.receive():
            if kind == "T":
                names = [part.split(b"\0")[0].decode() for part in _fields(payload)]
            elif kind == "D":
                found.append(dict(zip(names, _cells(payload), strict=True)))
            elif kind == "E":
                raise AssertionError(decode(payload))
        return found

    def refused(self, sql: str) -> dict[str, str]:
        self.send(query(sql))
        return self.error()


def _fields(payload: bytes) -> Iterator[bytes]:
    at = 2
    for _ in range(int.from_bytes(payload[:2], "big")):
        end = payload.index(b"\0", at)
        yield payload[at : end + 1]
        at = end + 19


def _cells(payload: bytes) -> Iterator[str | None]:
    at = 2
    for _ in range(int.from_bytes(payload[:2], "big")):
        size = int.from_bytes(payload[at : at + 4], "big", signed=True)
        yield None if size < 0 else payload[at + 4 : at + 4 + size].decode()
        at += 4 + max(size, 0)


def console(playing: Stage, user: str = "app", database: str = "pgbouncer") -> Console:
    player = playing.client(log_in=False)
    found = Console(playing, player.conn)
    found.log_in(user=user, database=database)
    return found


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


def test_pools_and_stats_count(stage: Make) -> None:
    playing = stage(pooler=POOLER)
    holder, waiter, asked = playing.client(), playing.client(), console(playing)
    holder.ask("BEGIN")
    waiter.send(query("SELECT 1"))
    playing.lane.advance(2)
    (pool,) = asked.rows("SHOW POOLS")
    assert (pool["database"], pool["user"], pool["pool_mode"]) == ("app", "app", "transaction")
    assert [pool[name] for name in ("cl_active", "cl_waiting", "sv_active", "sv_idle")] == ["1", "1", "1", "0"]
    holder.ask("COMMIT")
    playing.lane.advance(61)
    stats = {row["database"]: row for row in asked.rows("SHOW STATS")}
    assert (stats["app"]["total_xact_count"], stats["app"]["total_query_count"]) == ("2", "3")
    assert 1_500_000 <= int(stats["app"]["total_xact_time"]) <= 3_000_000
    playing.lane.advance(60)
    assert asked.rows("SHOW STATS_AVERAGES")[0]["query_count"] == "0"


def test_holders_say_who_and_why(stage: Make) -> None:
    playing = stage(pooler=POOLER, database="pool_size = 3")
    idle, busy, copying = playing.client(application_name="mine"), playing.client(), playing.client()
    idle.ask("BEGIN")
    idle.ask("SELECT  'what I\n did'")
    busy.send(query("SLEEP"))
    copying.send(query("COPY x FROM STDIN"))
    playing.lane.advance(2)
    asked = console(playing)
    held = {row["query"]: row for row in asked.rows("SHOW HOLDERS")}
    assert held["SELECT 'what I did'"]["reason"] == "in a transaction"
    assert held["SELECT 'what I did'"]["application_name"] == "mine"
    assert held["SELECT 'what I did'"]["transaction"] == "open"
    assert held["SLEEP"]["reason"] == "query running"
    assert int(held["SLEEP"]["seconds"]) >= 1
    assert held["COPY x FROM STDIN"]["reason"] == "COPY FROM STDIN"
    assert {row["state"] for row in asked.rows("SHOW CLIENTS")} == {"active"}
    asked.send(query(f"KILL_CLIENT {held['SLEEP']['client_id']}"))
    playing.lane.advance(6)
    assert asked.kinds() == "CI"
    assert busy.error()["C"] == "57P01"
    assert asked.refused("KILL_CLIENT 7")["C"] == "42704"


def test_pause_waits_for_transactions_and_resume_lets_go_on(stage: Make) -> None:
    playing = stage(pooler=POOLER, database="pool_size = 2")
    holder, idler, asked = playing.client(), playing.client(), console(playing)
    holder.ask("BEGIN")
    idler.ask("SELECT 1")
    asked.send(query("PAUSE app"))
    playing.lane.advance(1)
    assert asked.kinds() == ""
    assert len(playing.postgres.alive) == 1
    idler.send(query("SELECT 2"))
    playing.lane.advance(1)
    assert idler.kinds() == ""
    assert holder.ask("COMMIT") == "CI"
    playing.lane.advance(1)
    assert asked.kinds() == "CI"
    assert playing.postgres.alive == []
    assert asked.rows("SHOW DATABASES")[0]["paused"] == "1"
    assert asked.rows("SHOW STATE")[1] == {"key": "paused", "value": "yes"}
    playing.lane.advance(5)
    assert idler.kinds() == "N"
    asked.send(query("RESUME app"))
    playing.lane.advance(1)
    assert asked.kinds() == "CI"
    assert idler.kinds() == "DCI"
    assert "not paused" in asked.refused("RESUME")["M"]
    assert asked.refused("PAUSE nosuch")["C"] == "3D000"


def test_reconnect_closes_what_was_open_before_and_wait_close_waits(stage: Make) -> None:
    playing = stage(pooler=POOLER)
    holder, asked = playing.client(), console(playing)
    holder.ask("BEGIN")
    asked.send(query("RECONNECT"))
    assert asked.kinds() == "CI"
    asked.send(query("WAIT_CLOSE"))
    playing.lane.advance(1)
    assert asked.kinds() == ""
    assert holder.ask("COMMIT") == "CI"
    playing.lane.advance(1)
    assert asked.kinds() == "CI"
    assert holder.ask("SELECT 1") == "DCI"
    assert [backend.closed for backend in playing.postgres.backends] == [True, False]


def test_kill_ends_everybody_until_resume(stage: Make) -> None:
    playing = stage(pooler=POOLER, database="pool_size = 2")
    one, two, asked = playing.client(), playing.client(), console(playing)
    one.ask("BEGIN")
    two.ask("SELECT 1")
    asked.send(query("KILL app"))
    playing.lane.advance(8)
    assert asked.kinds() == "CI"
    assert (one.error()["C"], two.error()["C"]) == ("57P01", "57P01")
    assert playing.postgres.alive == []
    later = playing.client()
    later.send(query("SELECT 1"))
    playing.lane.advance(1)
    assert later.kinds() == ""
    asked.send(query("RESUME app"))
    playing.lane.advance(1)
    assert later.kinds() == "DCI"


def test_a_disabled_database_takes_nobody_in(stage: Make) -> None:
    playing = stage(pooler=POOLER)
    inside, asked = playing.client(), console(playing)
    asked.send(query("DISABLE app"))
    playing.lane.run()
    refused = playing.client(log_in=False)
    refused.send(b"\0\0\0\x12\0\x03\0\0user\0app\0\0")
    assert "disabled" in refused.error()["M"]
    assert inside.ask("SELECT 1") == "DCI"
    asked.send(query("ENABLE app"))
    playing.lane.run()
    assert playing.client().ask("SELECT 1") == "DCI"


def test_an_operator_that_leaves_waits_no_longer(stage: Make) -> None:
    playing = stage(pooler=POOLER)
    holder, asked = playing.client(), console(playing)
    holder.ask("BEGIN")
    asked.send(query("PAUSE"))
    asked.conn.close()
    playing.lane.advance(1)
    assert [client.database for client in playing.runtime.clients] == ["app"]


def test_a_reload_is_the_supervisors(stage: Make) -> None:
    playing = stage(pooler=POOLER)
    asked = console(playing)
    for errors, kinds in (((), "CI"), (("portway.toml:1: bad",), "EI")):
        asked.send(query("RELOAD"))
        column, order, _ = playing.mailbox.sent[-1]
        assert column == 0
        assert isinstance(order, ReloadWanted)
        playing.runtime.receive(Reloaded(order.number, errors), ())
        playing.lane.run()
        assert asked.kinds() == kinds
    asked.send(query("RELOAD"))
    playing.lane.advance(62)
    assert "no answer" in asked.error()["M"]


def test_other_workers_are_asked_and_one_that_is_silent_is_told_of(stage: Make) -> None:
    playing = stage(pooler=POOLER)
    asked = console(playing)
    other = playing.plane.claim_column("pooler", 2)
    playing.plane.set_state(other, ProcessState.READY)
    asked.send(query("SHOW CLIENTS"))
    column, order, _ = playing.mailbox.sent[-1]
    assert (column, type(order)) == (other, Ask)
    row = ["C", "there", *[None] * (len(sockets.COLUMNS["clients"]) - 2)]
    for last in (False, True):
        playing.runtime.receive(Told(other, order.number, [row], last), ())
    playing.lane.run()
    assert [found["user"] for found in asked.taken()] == ["there", "there"]
    asked.send(query("SHOW CLIENTS"))
    playing.lane.advance(3)
    assert asked.kinds() == "NTCI"
    asked.send(query(f"KILL_CLIENT {other << 24 | 5}"))
    assert asked.kinds() == "CI"
    assert playing.mailbox.sent[-1][1] == Kill(other << 24 | 5)
    playing.plane.processes.free(other)


def test_a_long_answer_goes_in_parts_once_there_is_room(stage: Make) -> None:
    playing = stage(pooler=POOLER)
    for _ in range(150):
        playing.client()
    playing.mailbox.full = True
    playing.runtime.receive(Ask(3, 9, "clients"), ())
    other = playing.plane.claim_column("pooler", 2)
    playing.plane.set_state(other, ProcessState.READY)
    playing.lane.advance(0.5)
    playing.mailbox.full = False
    playing.lane.advance(0.5)
    told = [order for _, order, _ in playing.mailbox.sent if isinstance(order, Told)]
    assert len(told) > 1
    assert [order.last for order in told] == [False] * (len(told) - 1) + [True]
    assert sum(len(order.rows) for order in told) == 150
    playing.plane.processes.free(other)


@pytest.mark.parametrize("piece", [1, 1 << 16])
def test_the_extended_protocol_through_the_session(stage: Make, piece: int) -> None:
    asked = console(stage(pooler=POOLER))
    batch = message(b"P", b"\0SHOW VERSION\0\0\0") + message(b"B", b"\0\0" + bytes(6)) + message(b"D", b"P\0")
    asked.send(batch + message(b"E", b"\0" + bytes(4)) + message(b"S"), piece)
    assert asked.kinds() == "12TDCI"
    asked.send(message(b"X"), piece)
    assert asked.ended
