"""Which connection to a server a request is put on, and which one no more."""

from __future__ import annotations

import attrs
import pytest

from gateway.http2.client import AskedStream
from gateway.http2.trunk import Trunk
from gateway.http2.trunks import Trunks
from supervisor.ground.net.memory import MemoryConn
from supervisor.ground.pools import Server
from tests.gateway.house import PLAIN, Build, House

TWO = PLAIN.replace('"127.0.0.1:8001"', '"127.0.0.1:8001", "127.0.0.1:8002"')
GET = b"\x82\x84\x86"  # GET / by http, from the static table


@attrs.define(eq=False)
class Stage:
    house: House
    trunks: Trunks
    ends: list[MemoryConn] = attrs.field(factory=list)  # the servers', in the order of `add`

    @property
    def servers(self) -> tuple[Server, ...]:
        return tuple(self.house.worker.pools["web"].servers)

    def add(self, server: Server) -> Trunk:
        near, far = self.house.lane.pair()
        self.ends.append(far)
        trunk = self.trunks.add(server, near)
        self.house.lane.run()
        return trunk

    def closed(self, number: int) -> bool:
        self.house.lane.run()
        self.ends[number].take()
        return self.ends[number].at_end


@pytest.fixture
def stage(build: Build) -> Stage:
    house = build(TWO)
    return Stage(house, house.gateway._shared.trunks)


class Caller:
    """Whose request it is; he wants to know nothing of it."""

    def news(self) -> None: ...


def ask(trunk: Trunk) -> AskedStream:
    stream = trunk.core.open(GET, end=True)
    stream.owner = Caller()
    return stream


def full(trunk: Trunk) -> list[AskedStream]:
    return [ask(trunk) for _ in range(trunk.room)]


def test_a_server_without_a_connection_has_none(stage: Stage) -> None:
    assert [stage.trunks.find(server) for server in stage.servers] == [None, None]


def test_the_oldest_with_room_is_used_so_that_the_others_come_to_rest(stage: Stage) -> None:
    one, other = stage.servers
    first, second = stage.add(one), stage.add(one)
    assert stage.trunks.find(one) is first
    assert stage.trunks.find(other) is None
    streams = full(first)
    assert stage.trunks.find(one) is second
    full(second)
    assert stage.trunks.find(one) is None
    first.core.abandon(streams[0])
    assert stage.trunks.find(one) is first


def test_one_that_breaks_is_gone_and_the_others_stay(stage: Stage) -> None:
    one, _ = stage.servers
    first, second = stage.add(one), stage.add(one)
    assert stage.trunks.find(one) is first
    stage.ends[0].close()
    stage.house.lane.run()
    assert stage.trunks.find(one) is second
    stage.ends[1].abort()
    stage.house.lane.run()
    assert stage.trunks.find(one) is None
    assert not stage.trunks._of  # nothing is kept of a server without connections


def test_one_that_retires_takes_no_more_and_ends_with_its_last_request(stage: Stage) -> None:
    one, _ = stage.servers
    trunk = stage.add(one)
    stream = ask(trunk)
    trunk.wake()
    trunk.retire()
    trunk.retire()
    assert stage.trunks.find(one) is None
    assert not stage.closed(0)
    trunk.core.abandon(stream)
    trunk.wake()
    assert stage.closed(0)


def test_a_reload_keeps_the_connections_to_the_servers_that_stay(stage: Stage) -> None:
    one, other = stage.servers
    kept = stage.add(one)
    for _ in range(2):
        stage.add(other)
    stage.trunks.keep_only([one])
    assert stage.trunks.find(one) is kept
    assert stage.trunks.find(other) is None
    assert [stage.closed(number) for number in range(3)] == [False, True, True]
    stage.trunks.keep_only([])
    assert stage.closed(0)
    assert not stage.trunks._of
