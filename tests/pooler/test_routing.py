"""Which transactions go to a replica, and who becomes the primary."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooler.messages import message, query
from pooler.prepared import parsed
from pooler.routing import Reading, reads
from supervisor.plane.layout import Kind, Role, ServerState
from tests.pooler.fake_postgres import FakePostgres
from tests.pooler.stage import Stage

Make = Callable[..., Stage]

REPLICA = ("127.0.0.1", 5433)
TABLES = f"""
[pools.pg.health]
type = "postgres"
[pools.replicas]
servers = ["{REPLICA[0]}:{REPLICA[1]}"]
health = {{ type = "postgres" }}
"""


class Theatre:
    """A stage with a replica. What the prober would say of both stands in the plane."""

    def __init__(self, stage: Make, reads: str = "auto") -> None:
        self.playing = stage(database=f'replicas = "replicas"\nreads = "{reads}"\npool_size = 2\n{TABLES}')
        self.replica = FakePostgres(self.playing.lane, reported={"in_hot_standby": "on"})
        self.playing.lane.servers[REPLICA] = self.replica.accept
        self.say("pg/127.0.0.1:5432", Role.PRIMARY, 100)
        self.say("replicas/127.0.0.1:5433", Role.REPLICA, 100)

    def say(self, server: str, role: int, wal: int, lag: int = 0, timeline: int = 1) -> None:
        plane = self.playing.plane
        at = plane.state(Kind.SERVER, plane.row(Kind.SERVER, server))
        for field, value in (
            (ServerState.WAL, wal), (ServerState.LAG_MS, lag), (ServerState.TIMELINE, timeline),
            (ServerState.ROLE_ASKED, self.playing.lane.now_ns), (ServerState.ROLE, role),
        ):  # fmt: skip
            plane.cells[at + field] = value

    def asked(self) -> list[str]:
        return [sql for backend in self.replica.backends for sql in backend.queries]


def q(sql: str) -> bytes:
    return query(sql)


def batch(*statements: str, sync: bool = True) -> bytes:
    data = b""
    for sql in statements:
        data += message(b"P", b"\0" + sql.encode() + b"\0\0\0") + message(b"B", bytes(8)) + message(b"E", bytes(5))
    return data + (message(b"S") if sync else b"")


@pytest.mark.parametrize(
    ("data", "always", "auto"),
    [
        (q("BEGIN READ ONLY"), True, True),
        (q("start transaction isolation level serializable, read only; select 1"), True, True),
        (q("BEGIN"), False, False),
        (q("BEGIN; SELECT 'READ ONLY'"), False, False),
        (q("SELECT 1"), False, True),
        (q("select * from t; "), False, True),
        (q("SELECT 1; DELETE FROM t"), False, False),
        (q("SELECT * FROM t FOR UPDATE"), False, False),
        (q("SELECT * INTO u FROM t"), False, False),
        (q("SELECT nextval('s')"), False, False),
        (q("UPDATE t SET n = 1"), False, False),
        (batch("SELECT $1"), False, True),
        (batch("SELECT $1", "SELECT 2"), False, True),
        (batch("SELECT $1", "DELETE FROM t"), False, False),
        (batch("SELECT $1", sync=False), False, False),
        (batch("BEGIN READ ONLY", "SELECT 1"), True, True),
        (message(b"B", b"\0known\0" + bytes(6)) + message(b"E", bytes(5)) + message(b"S"), False, False),
    ],
)
def test_what_only_reads(data: bytes, always: bool, auto: bool) -> None:
    assert [reads(data, rule) is not Reading.NOT for rule in (False, True)] == [always, auto]


def test_what_is_whole_and_only_reads() -> None:
    """A replica may be tried with it; a transaction that begins is the client's to go on with."""
    for data in (q("SELECT 1"), batch("SELECT $1"), batch("SELECT $1", "SELECT 2")):
        assert reads(data, True) is Reading.ALONE
    for data in (q("BEGIN READ ONLY"), q("BEGIN READ ONLY; SELECT 1"), batch("BEGIN READ ONLY", "SELECT 1")):
        assert reads(data, True) is Reading.BEGUN


def test_a_statement_that_was_prepared_before_is_known() -> None:
    prepared = {b"s": parsed(b"SELECT 1", b"\0\0", b""), b"w": parsed(b"DELETE FROM t", b"\0\0", b"")}

    def bind(name: bytes) -> bytes:
        return message(b"B", b"\0" + name + bytes(7)) + message(b"E", bytes(5)) + message(b"S")

    assert reads(bind(b"s"), True, prepared) is Reading.ALONE
    assert reads(bind(b"s"), False, prepared) is Reading.NOT
    for name in (b"w", b"other", b""):
        assert reads(bind(name), True, prepared) is Reading.NOT


@given(st.binary(min_size=5), st.booleans())
def test_any_bytes_are_looked_at(data: bytes, auto: bool) -> None:
    reads(data, auto)


def test_reads_go_to_the_replica_and_writes_to_the_primary(stage: Make) -> None:
    theatre = Theatre(stage)
    client = theatre.playing.client()
    assert client.ask("SELECT 1") == "DCI"
    assert client.ask("UPDATE t") == "DCI"
    assert theatre.asked() == ["SELECT 1"]
    assert theatre.playing.postgres.backends[0].queries == ["UPDATE t"]


def test_a_client_reads_what_it_has_written(stage: Make) -> None:
    theatre = Theatre(stage)
    playing = theatre.playing
    client, other = playing.client(), playing.client()
    client.ask("UPDATE t")
    client.ask("SELECT 1")
    assert theatre.asked() == []
    playing.lane.advance(1)
    theatre.say("pg/127.0.0.1:5432", Role.PRIMARY, 200)
    client.ask("SELECT 2")
    assert theatre.asked() == []
    other.ask("SELECT 'other'")
    assert theatre.asked() == ["SELECT 'other'"]
    theatre.say("replicas/127.0.0.1:5433", Role.REPLICA, 200)
    client.ask("SELECT 3")
    assert theatre.asked() == ["SELECT 'other'", "SELECT 3"]


def test_read_only_transactions_by_rule_and_by_setting(stage: Make) -> None:
    theatre = Theatre(stage, "read_only_transactions")
    client = theatre.playing.client()
    client.ask("SELECT 1")
    for sql in ("BEGIN READ ONLY", "SELECT 2", "COMMIT"):
        client.ask(sql)
    assert theatre.asked() == []  # it may have written
    fresh = theatre.playing.client()
    for sql in ("BEGIN READ ONLY", "SELECT 3", "COMMIT"):
        fresh.ask(sql)
    assert theatre.asked() == ["BEGIN READ ONLY", "SELECT 3", "COMMIT"]


def test_a_replica_that_lags_or_is_none_any_more_is_not_asked(stage: Make) -> None:
    theatre = Theatre(stage)
    playing = theatre.playing
    client = playing.client()
    client.ask("SELECT 1")
    theatre.say("replicas/127.0.0.1:5433", Role.REPLICA, 100, lag=60_000)
    playing.lane.advance(0.5)
    assert theatre.replica.alive == []
    client.send(query("SELECT 2"))
    playing.lane.advance(2)
    client.kinds()
    client = playing.client()
    assert client.ask("SELECT 3") == "DCI"
    assert theatre.asked() == ["SELECT 1"]
    theatre.say("replicas/127.0.0.1:5433", Role.REPLICA, 100)
    playing.lane.advance(2)
    assert client.ask("SELECT 4") == "DCI"
    assert theatre.asked() == ["SELECT 1", "SELECT 4"]


def test_what_a_replica_refuses_as_a_write_is_the_primarys(stage: Make) -> None:
    theatre = Theatre(stage)
    theatre.replica.refuses = {"SELECT writes()": "25006"}
    client = theatre.playing.client()
    client.send(query("SELECT writes()"))
    theatre.playing.lane.advance(0.5)
    assert client.kinds() == "DCI"
    assert theatre.asked() == ["SELECT writes()"]
    assert theatre.playing.postgres.backends[0].queries == ["SELECT writes()"]
    client.ask("SELECT 1")  # it has written
    assert theatre.asked() == ["SELECT writes()"]
    theatre.replica.refuses = {"SELECT fails()": "42601"}
    fresh = theatre.playing.client()
    fresh.send(query("SELECT fails()"))
    assert fresh.kinds() == "TE"
    theatre.playing.lane.advance(0.5)
    assert fresh.kinds() == "I"


NAMED = message(b"P", b"write\0SELECT writes()\0\0\0") + message(b"D", b"Swrite\0")
BOUND = message(b"B", b"\0write\0" + bytes(6)) + message(b"E", bytes(5)) + message(b"S")


def test_a_batch_that_a_replica_refuses_as_a_write_is_the_primarys(stage: Make) -> None:
    theatre = Theatre(stage)
    theatre.replica.refuses = {"SELECT writes()": "25006"}
    client = theatre.playing.client()
    client.send(batch("SELECT writes()"))
    theatre.playing.lane.advance(0.5)
    assert client.kinds() == "12DCI"
    assert theatre.asked() == theatre.playing.postgres.backends[0].queries == ["SELECT writes()"]


@pytest.mark.parametrize("known", [False, True], ids=["prepared here", "prepared there by another client"])
def test_a_statement_that_the_refused_batch_prepares_is_prepared_once(stage: Make, known: bool) -> None:
    theatre = Theatre(stage)
    if known:  # what we answer ourselves is kept back, too
        other = theatre.playing.client()
        other.send(NAMED + message(b"S"))
        assert other.kinds() == "1nI"
    theatre.replica.refuses = {"SELECT writes()": "25006"}
    client = theatre.playing.client()
    client.send(NAMED + BOUND)
    theatre.playing.lane.advance(0.5)
    assert client.kinds() == "1n2DCI"
    client.send(BOUND)
    theatre.playing.lane.advance(0.5)
    assert client.kinds() == "2DCI"
    client.send(NAMED + message(b"S"))
    theatre.playing.lane.advance(0.5)
    assert client.error()["C"] == "42P05"


def test_a_statement_prepared_before_is_refused_and_asked_of_the_primary(stage: Make) -> None:
    theatre = Theatre(stage)
    theatre.replica.refuses = {"SELECT writes()": "25006"}
    client = theatre.playing.client()
    client.send(NAMED + message(b"S"))
    assert client.kinds() == "1nI"
    client.send(BOUND)
    theatre.playing.lane.advance(0.5)
    assert client.kinds() == "2DCI"
    assert theatre.asked() == theatre.playing.postgres.backends[0].queries == ["SELECT writes()"]


def test_what_comes_behind_a_read_is_routed_by_itself(stage: Make) -> None:
    """Whether the read is refused or not; and no answer is lost."""
    theatre = Theatre(stage)
    theatre.replica.refuses = {"SELECT writes()": "25006"}
    for read in ("SELECT writes()", "SELECT 1"):
        client = theatre.playing.client()
        client.send(query(read))
        client.send(query("UPDATE t") + batch("UPDATE u"))
        theatre.playing.lane.advance(0.5)
        assert client.kinds() == "DCIDCI12DCI"
    assert theatre.asked() == ["SELECT writes()", "SELECT 1"]


def test_a_client_that_leaves_during_a_trial_takes_nothing_with_it(stage: Make) -> None:
    theatre = Theatre(stage)
    theatre.replica.refuses = {"SELECT writes()": "25006"}
    client = theatre.playing.client()
    client.send(batch("SELECT writes()"))
    client.conn.close()
    theatre.playing.lane.advance(1)
    assert not theatre.playing.runtime.clients
    assert theatre.playing.postgres.backends[0].queries == []
    assert len(theatre.replica.alive) == 1


def test_a_client_that_has_ended_its_side_gets_the_primarys_answer(stage: Make) -> None:
    theatre = Theatre(stage)
    theatre.replica.refuses = {"SELECT writes()": "25006"}
    client = theatre.playing.client()
    client.send(batch("SELECT writes()"))
    client.send(query("UPDATE t"))
    client.conn.shutdown_write()
    theatre.playing.lane.advance(0.5)
    assert theatre.asked() == ["SELECT writes()"]
    assert client.kinds().replace("S", "") == "12DCIDCI"
    assert client.ended


def test_a_replica_that_dies_during_a_trial_is_told(stage: Make) -> None:
    theatre = Theatre(stage)
    theatre.replica.refuses = {"SELECT writes()": "25006"}
    client = theatre.playing.client()
    client.send(batch("SELECT writes()"))
    theatre.replica.backends[0].conn.close()
    theatre.playing.lane.advance(1)
    assert client.error()["M"] == "server closed the connection unexpectedly"


def test_where_no_replica_can_be_had_the_primary_answers_until_one_comes_back(stage: Make) -> None:
    theatre = Theatre(stage)
    theatre.replica.dead = True
    client = theatre.playing.client()
    for number in range(3):
        assert client.ask(f"SELECT {number}") == "DCI"
    assert len(theatre.playing.postgres.backends[0].queries) == 3
    theatre.replica.dead = False
    theatre.playing.lane.advance(2)
    fresh = theatre.playing.client()
    assert fresh.ask("SELECT 'back'") == "DCI"
    assert theatre.asked() == ["SELECT 'back'"]


def test_a_reload_may_take_the_replicas_away(stage: Make) -> None:
    theatre = Theatre(stage)
    client = theatre.playing.client()
    client.ask("SELECT 1")
    config = theatre.playing.configure(database=f"pool_size = 2\n{TABLES}")
    theatre.playing.runtime.commit(theatre.playing.runtime.prepare(config))
    assert client.ask("SELECT 2") == "DCI"
    assert theatre.asked() == ["SELECT 1"]


FAILOVER = f"""
pool_size = 2
target_session_attrs = "primary"
[pools.nodes]
servers = ["127.0.0.1:5432", "{REPLICA[0]}:{REPLICA[1]}"]
health = {{ type = "postgres" }}
"""


def test_clients_wait_for_the_new_primary(stage: Make) -> None:
    """Both nodes stand in one pool; the prober sees the promotion a while after the primary is gone."""
    playing = stage(pooler='server_login_retry = "200ms"', database=FAILOVER, primary="nodes")
    node = FakePostgres(playing.lane, reported={"in_hot_standby": "on"})
    playing.lane.servers[REPLICA] = node.accept
    theatre = Theatre.__new__(Theatre)
    theatre.playing = playing
    theatre.say("nodes/127.0.0.1:5432", Role.PRIMARY, 100)
    theatre.say("nodes/127.0.0.1:5433", Role.REPLICA, 100)
    clients = [playing.client() for _ in range(3)]
    assert clients[0].ask("SELECT 1") == "DCI"
    playing.postgres.dead = True
    for backend in playing.postgres.alive:
        backend.conn.close()
    playing.lane.run()
    for client in clients:
        client.send(query("SELECT 2"))
    playing.lane.advance(2)
    assert [client.kinds() for client in clients] == ["", "", ""]
    node.reported = {"in_hot_standby": "off"}
    theatre.say("nodes/127.0.0.1:5433", Role.PRIMARY, 120, timeline=2)
    playing.lane.advance(1)
    assert [client.kinds() for client in clients] == ["DCI"] * 3
    assert node.alive


def test_a_connection_to_a_primary_that_was_replaced_is_dropped_at_its_transactions_end(stage: Make) -> None:
    playing = stage(database=FAILOVER, primary="nodes")
    node = FakePostgres(playing.lane, reported={"in_hot_standby": "off"})
    playing.lane.servers[REPLICA] = node.accept
    theatre = Theatre.__new__(Theatre)
    theatre.playing = playing
    theatre.say("nodes/127.0.0.1:5432", Role.PRIMARY, 100)
    theatre.say("nodes/127.0.0.1:5433", Role.REPLICA, 100)
    client = playing.client()
    client.ask("BEGIN")
    theatre.say("nodes/127.0.0.1:5433", Role.PRIMARY, 100, timeline=2)
    playing.lane.advance(0.5)
    assert client.ask("COMMIT") == "CI"
    assert client.ask("SELECT 1") == "DCI"
    assert [backend.queries for backend in node.backends] == [["SELECT 1"]]
