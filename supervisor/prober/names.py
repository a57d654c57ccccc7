"""Servers given by name: looked up, again when the answer's time is over, and written where all workers read.

A (and AAAA) records give addresses, SRV records addresses with their ports, best priority first. A name that stands for
several servers (`addresses`) fills as many places as it has addresses; a server keeps its address for as long as
the name has it. What says that the name does not exist takes its servers down; what fails to answer changes nothing.
/etc/hosts goes first, as everywhere.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import dns.asyncresolver
import dns.exception
import dns.resolver
import trio

from supervisor.ground import health, places
from supervisor.ground.config import Address, Bind, Config
from supervisor.ground.pools import server_name
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

LIFETIME = 5.0  # seconds for one look-up, all name servers and repetitions included; resolv.conf's default timeout
MIN_TTL, MAX_TTL = 1.0, 300.0  # seconds; what a zone says is believed within these
HOSTS_TTL = 5.0  # seconds until /etc/hosts is read again
RETRY = 2.0  # seconds after a look-up that failed or said that there is nothing
HOSTS = Path("/etc/hosts")

Found = tuple[str, int]  # host, port


class NoAnswer(Exception):
    """Nobody could say whether the name exists."""


@attrs.frozen
class Answer:
    """What a name means, the preferred first; nothing if it does not exist."""

    found: tuple[Found, ...]
    ttl: float


@attrs.frozen
class Place:
    """A server that waits for an address."""

    name: str
    state: int
    pool_row: int


@attrs.define(eq=False)
class Names:
    """All names of a configuration. `run` is a task."""

    config: Config
    plane: Plane
    column: int
    log: FilteringBoundLogger
    lookup: Lookup

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for (_, address), waiting in named(self.config, self.plane).items():
                nursery.start_soon(self.follow, address, waiting)

    async def follow(self, address: Address, waiting: Sequence[Place]) -> None:
        """One name of one pool, for ever."""
        failing = ""
        while True:
            try:
                answer = await self.lookup(address)
            except NoAnswer as error:
                if str(error) != failing:
                    self.log.warning("name not looked up", server=waiting[0].name, cause=str(error))
                failing, pause = str(error), RETRY
            else:
                failing = ""
                self.place(waiting, answer.found)
                pause = min(MAX_TTL, max(MIN_TTL, answer.ttl)) if answer.found else RETRY
            await trio.sleep(pause * (0.9 + 0.2 * random.random()))

    def place(self, waiting: Sequence[Place], found: Sequence[Found]) -> None:
        """Give the servers these addresses."""
        cells = self.plane.cells
        before = [places.read(cells, one.state) for one in waiting]
        after = assign([None if place is None else place[1] for place in before], found)
        for one, old, new in zip(waiting, before, after, strict=True):
            if new == (None if old is None else old[1]):
                continue
            places.write(cells, one.state, *(new or ("", 0)))
            health.touch(self.plane, one.pool_row, self.column)
            if new is None:
                self.log.warning("server has no address", server=one.name)
            else:
                self.log.info("server found", server=one.name, address=f"{new[0]} port {new[1]}")


def assign(before: Sequence[Found | None], found: Iterable[Found]) -> list[Found | None]:
    """The address of each place: those that have one that is still there keep it, the others get what is left."""
    wanted = list(dict.fromkeys(found))
    after = [place if place in wanted else None for place in before]
    left = iter([one for one in wanted if one not in after])
    return [place if place is not None else next(left, None) for place in after]


def named(config: Config, plane: Plane) -> dict[tuple[str, Address], list[Place]]:
    """The servers of each pool that are given by the same name."""
    servers: dict[tuple[str, Address], list[Place]] = {}
    for pool, table in config.pools.items():
        for server in table.servers:
            if server.address.is_name:
                name = server_name(pool, server)
                state = plane.state(Kind.SERVER, plane.row(Kind.SERVER, name))
                place = Place(name, state, plane.row(Kind.POOL, pool))
                servers.setdefault((pool, attrs.evolve(server.address, number=0)), []).append(place)
    return servers


class Lookup:
    """Asks /etc/hosts, then DNS."""

    def __init__(self, nameservers: Sequence[Bind] = (), hosts: Path = HOSTS) -> None:
        self._hosts = hosts
        self._resolver = resolver(nameservers)

    async def __call__(self, address: Address) -> Answer:
        """Raises NoAnswer."""
        if address.is_service:
            return await self._service(address.host)
        found, ttl = await self._addresses(address.host)
        return Answer(tuple((host, address.port) for host in found), ttl)

    async def _addresses(self, name: str) -> tuple[list[str], float]:
        try:
            text = self._hosts.read_text(errors="replace")
        except OSError:
            text = ""
        if listed := [*in_hosts(text, name)]:
            return listed, HOSTS_TTL
        # One after the other: names that have both are rare, and the first is what is connected to.
        four, ttl = await self._ask(name, "A")
        six, ttl6 = await self._ask(name, "AAAA")
        return [str(record.address) for record in (*four, *six)], min(ttl, ttl6)

    async def _service(self, name: str) -> Answer:
        records, ttl = await self._ask(name, "SRV")
        found: list[Found] = []
        for record in sorted(records, key=lambda one: (one.priority, -one.weight, str(one.target))):
            hosts, host_ttl = await self._addresses(record.target.to_text(omit_final_dot=True))
            ttl = min(ttl, host_ttl)
            found += [(host, record.port) for host in hosts]
        return Answer(tuple(found), ttl)

    async def _ask(self, name: str, kind: str) -> tuple[list[Any], float]:
        """The records, in an order of their own: that of answers goes round."""
        if self._resolver is None:
            raise NoAnswer("no name server: neither /etc/resolv.conf nor supervisor.nameservers names one")
        try:
            answer = await self._resolver.resolve(name, kind, search=True, lifetime=LIFETIME)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return [], MAX_TTL
        except (dns.exception.DNSException, OSError) as error:
            raise NoAnswer(str(error)) from None
        return sorted(answer, key=str), max(0.0, answer.expiration - time.time())


def resolver(nameservers: Sequence[Bind]) -> dns.asyncresolver.Resolver | None:
    """One that asks these, or those of /etc/resolv.conf; None if that names nobody."""
    if not nameservers:
        try:
            return dns.asyncresolver.Resolver()
        except dns.resolver.NoResolverConfiguration:
            return None
    made = dns.asyncresolver.Resolver(configure=False)
    made.nameservers = [server.host for server in nameservers]
    made.nameserver_ports = {server.host: server.port for server in nameservers}
    return made


def in_hosts(text: str, name: str) -> Iterator[str]:
    """The addresses of a name in the text of a hosts file (hosts(5))."""
    wanted = name.rstrip(".").lower()
    for line in text.splitlines():
        words = line.partition("#")[0].lower().split()
        if wanted in words[1:] and "%" not in words[0]:
            yield words[0]
