"""Names against a name server of the test's own."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import attrs
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.arbiter.rows import rows_of
from supervisor.ground import places
from supervisor.ground.config import Address, Bind, Config, load_bytes
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane
from supervisor.prober import names
from supervisor.prober.names import Answer, Lookup, Names, NoAnswer, assign, in_hosts, named

FOUND = st.tuples(st.sampled_from("abcdef"), st.just(80))


@given(st.lists(st.none() | FOUND, max_size=6, unique=True), st.lists(FOUND, max_size=8))
def test_who_is_still_there_keeps_its_place_and_the_rest_is_filled(before: list[Any], found: list[Any]) -> None:
    after = assign(before, found)
    assert len(after) == len(before)
    taken = [one for one in after if one is not None]
    assert len(set(taken)) == len(taken)
    assert set(taken) <= set(found)
    for old, new in zip(before, after, strict=True):
        if old in found and old is not None:
            assert new == old
    assert len(taken) == min(len(before), len(set(found)))


def test_a_hosts_file_is_read_as_everywhere() -> None:
    text = "127.0.0.1 localhost\n10.0.0.1\tApp.internal app # old-app\nfe80::1%eth0 app\nfd00::1 app\n"
    assert [*in_hosts(text, "app")] == ["10.0.0.1", "fd00::1"]
    assert [*in_hosts(text, "APP.internal.")] == ["10.0.0.1"]
    assert [*in_hosts(text, "old-app")] == []


ZONE = {
    ("app.internal.", "A"): ["10.0.0.2", "10.0.0.1"],
    ("app.internal.", "AAAA"): ["fd00::1"],
    ("_http._tcp.app.internal.", "SRV"): ["20 5 8082 b.internal.", "10 1 8080 a.internal.", "10 9 8081 b.internal."],
    ("a.internal.", "A"): ["10.0.1.1"],
    ("b.internal.", "A"): ["10.0.1.2"],
    ("empty.internal.", "TXT"): ['"nothing"'],
}


async def asked(
    address: Address, hosts: str = "", zone: Any = ZONE, garbled: Callable[[bytes], bytes] = bytes
) -> Answer | str:
    """What a look-up finds in the zone; the cause where nobody can say."""
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))

        async def serve() -> None:
            while True:
                data, source = await sock.recvfrom(4096)
                question = dns.message.from_wire(data)
                reply = dns.message.make_response(question)
                name, kind = question.question[0].name, dns.rdatatype.to_text(question.question[0].rdtype)
                if str(name).startswith("broken"):
                    reply.set_rcode(dns.rcode.SERVFAIL)
                elif records := zone.get((str(name), kind)):
                    reply.answer.append(dns.rrset.from_text_list(name, 30, "IN", kind, records))
                elif not any(str(name) == one for one, _ in zone):
                    reply.set_rcode(dns.rcode.NXDOMAIN)
                await sock.sendto(garbled(reply.to_wire()), source)

        folder = Path("/nonexistent")
        lookup = Lookup([Bind("127.0.0.1", sock.getsockname()[1])], folder / "hosts")
        if hosts:
            lookup._hosts = FakeHosts(hosts)  # type: ignore[assignment]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            try:
                return await lookup(address)
            except NoAnswer as error:
                return str(error)
            finally:
                nursery.cancel_scope.cancel()


@attrs.frozen
class FakeHosts:
    text: str

    def read_text(self, errors: str) -> str:
        return self.text


def found(address: Address, **more: Any) -> list[tuple[str, int]]:
    answer = trio.run(lambda: asked(address, **more))
    assert isinstance(answer, Answer)
    return list(answer.found)


def test_addresses_of_both_families_are_found_in_an_order_of_their_own() -> None:
    assert found(Address("app.internal", 80)) == [("10.0.0.1", 80), ("10.0.0.2", 80), ("fd00::1", 80)]


def test_a_service_brings_its_ports_the_best_priority_first() -> None:
    service = Address("_http._tcp.app.internal", 0)
    assert found(service) == [("10.0.1.2", 8081), ("10.0.1.1", 8080), ("10.0.1.2", 8082)]


def test_the_time_to_live_comes_along() -> None:
    answer = trio.run(lambda: asked(Address("app.internal", 80)))
    assert isinstance(answer, Answer)
    assert 25 < answer.ttl <= 30


@pytest.mark.parametrize("name", ["nobody.internal", "empty.internal"])
def test_what_does_not_exist_is_found_to_be_nowhere(name: str) -> None:
    assert found(Address(name, 80)) == []


def test_what_cannot_be_answered_is_not_an_answer() -> None:
    cause = trio.run(lambda: asked(Address("broken.internal", 80)))
    assert isinstance(cause, str)
    assert "broken.internal" in cause


def test_the_hosts_file_goes_first() -> None:
    assert found(Address("app.internal", 80), hosts="192.0.2.7 app.internal") == [("192.0.2.7", 80)]


@settings(max_examples=settings().max_examples // 4)  # each with sockets of its own
@given(
    st.sampled_from(["app.internal", "_http._tcp.app.internal"]),
    st.lists(st.tuples(st.integers(2, 120), st.integers(0, 255)), max_size=4),
    st.integers(0, 140),
)
def test_property_any_answer_is_addresses_or_a_cause(name: str, changes: list[tuple[int, int]], length: int) -> None:
    def garbled(wire: bytes) -> bytes:
        made = bytearray(wire)
        for at, byte in changes:
            if at < len(made):
                made[at] = byte
        return bytes(made[: max(2, length)] if length < 120 else made)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "LIFETIME", 0.03)  # seconds: what is no answer is waited out
        trio.run(lambda: asked(Address(name, 0 if name.startswith("_") else 80), garbled=garbled))


TEXT = """
[pools.one]
servers = ["app.internal:80", "10.9.9.9:80"]
[pools.many]
servers = [{ address = "app.internal:80", addresses = 3 }]
"""


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, Any]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields.get("server")))

    warning = info


@pytest.fixture
def plane() -> Iterator[Plane]:
    plane = Plane.create()
    for kind, name in rows_of(load(), ()):
        plane.allocate(kind, name)
    yield plane
    plane.close()


def load() -> Config:
    return load_bytes(TEXT.encode(), "x.toml", Path("/"), {})


def where(plane: Plane, name: str) -> Any:
    place = places.read(plane.cells, plane.state(Kind.SERVER, plane.row(Kind.SERVER, name)))
    return None if place is None else place[1][0]


def test_a_name_is_several_servers_where_that_is_said(plane: Plane) -> None:
    waiting = {(pool, str(name)): [one.name for one in them] for (pool, name), them in named(load(), plane).items()}
    assert waiting == {
        ("one", "app.internal:80"): ["one/app.internal:80"],
        ("many", "app.internal:80"): [f"many/app.internal:80#{number}" for number in (1, 2, 3)],
    }


def run(plane: Plane, script: list[Any], seconds: float) -> tuple[Log, Callable[[str], Any]]:
    """Follow the names for so long; each look-up of the script answers, or raises; the last, time and again."""
    log = Log()
    answers = {pool: chain(script, repeat(script[-1])) for pool in ("one", "many")}

    async def main() -> None:
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for (pool, address), waiting in named(load(), plane).items():
                    names = Names(load(), plane, 2, log, lookup_of(answers[pool]))  # type: ignore[arg-type]
                    nursery.start_soon(names.follow, address, waiting)

    def lookup_of(script: Iterator[Any]) -> Any:
        async def lookup(address: Address) -> Answer:
            item = next(script)
            if isinstance(item, Exception):
                raise item
            return Answer(tuple((host, 80) for host in item), 10)

        return lookup

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return log, lambda name: where(plane, name)


def test_a_server_follows_its_name_and_keeps_what_is_still_there(plane: Plane) -> None:
    log, at = run(plane, [["10.0.0.1", "10.0.0.2"], ["10.0.0.2", "10.0.0.3"]], 12)
    assert at("one/app.internal:80") == "10.0.0.2"
    assert [at(f"many/app.internal:80#{number}") for number in (1, 2, 3)] == ["10.0.0.3", "10.0.0.2", None]
    assert ("server found", "one/app.internal:80") in log.lines


def test_a_name_that_is_gone_takes_its_server_down_and_one_that_cannot_be_asked_does_not(plane: Plane) -> None:
    _, at = run(plane, [["10.0.0.1"], NoAnswer("SERVFAIL"), NoAnswer("SERVFAIL")], 13)
    assert at("one/app.internal:80") == "10.0.0.1"
    log, at = run(plane, [[]], 1)
    assert at("one/app.internal:80") is None
    assert ("server has no address", "one/app.internal:80") in log.lines
