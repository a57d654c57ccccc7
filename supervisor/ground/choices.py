"""The ways to choose one server of those that take work; a pool has one, and arranges it anew when that list changes.

`pick` is on the hot path and looks at the first choice only; `among` chooses from what is left when the first choice
was tried already or is full. Both go on from the same state, by the same key to the same server. The mathematics is
`balance`'s.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from supervisor.ground import balance
from supervisor.ground.servers import Server

MAX_COMPARED = 16  # servers whose loads least_connections reads for a pick; of more, a random sample of as many

Key = int | bytes | str | None

_SLOT_MASK = balance.SOURCE_SLOTS - 1


class Choice(Protocol):
    def arrange(self, candidates: Sequence[Server]) -> None:
        """These take work from now on."""

    def pick(self, key: Key) -> Server | None:
        """The first choice; None if there are no candidates."""

    def among(self, key: Key, rest: Sequence[Server]) -> Server:
        """The choice among some of the candidates, at least one."""


class RoundRobin:
    """In turn, as often as the weights say. `start` sets where: workers don't all begin at the same server."""

    def __init__(self, start: int) -> None:
        self._sequence: list[Server] = []
        self._next = start

    def arrange(self, candidates: Sequence[Server]) -> None:
        self._sequence = [candidates[at] for at in balance.schedule([server.weight for server in candidates])]

    def pick(self, key: Key) -> Server | None:
        at, sequence = self._next, self._sequence
        if at >= len(sequence):
            if not sequence:
                return None
            at %= len(sequence)
        self._next = at + 1
        return sequence[at]

    def among(self, key: Key, rest: Sequence[Server]) -> Server:
        for _ in self._sequence:
            server = self.pick(None)
            if server is not None and server in rest:
                return server
        return rest[0]


class SourceHash(RoundRobin):
    """By key: keys share 16384 slots, each with its preferred server, found when it is first asked for."""

    def __init__(self, start: int) -> None:
        super().__init__(start)
        self._candidates: Sequence[Server] = ()
        self._slots: list[Server | None] = []

    def arrange(self, candidates: Sequence[Server]) -> None:
        super().arrange(candidates)
        self._candidates = candidates
        self._slots = [None] * balance.SOURCE_SLOTS

    def pick(self, key: Key) -> Server | None:
        if key is None or not self._candidates:
            return super().pick(None)
        slot = balance.key_hash(key) & _SLOT_MASK
        server = self._slots[slot]
        if server is None:
            server = self._slots[slot] = _preferred(self._candidates, slot)
        return server

    def among(self, key: Key, rest: Sequence[Server]) -> Server:
        return super().among(None, rest) if key is None else _preferred(rest, balance.key_hash(key) & _SLOT_MASK)


class Maglev(RoundRobin):
    """By key, in a table over all servers of the pool: one that takes no work moves only its own keys."""

    def __init__(self, start: int, servers: Sequence[Server], table: Sequence[int]) -> None:
        super().__init__(start)
        self._servers = servers
        self._table = table
        self._candidates: Sequence[Server] = ()

    def arrange(self, candidates: Sequence[Server]) -> None:
        super().arrange(candidates)
        self._candidates = candidates

    def pick(self, key: Key) -> Server | None:
        if key is None or not self._candidates:
            return super().pick(None)
        return self.among(key, self._candidates)

    def among(self, key: Key, rest: Sequence[Server]) -> Server:
        if key is None:
            return super().among(None, rest)
        servers, hashed = self._servers, balance.key_hash(key)
        index = balance.probe(self._table, hashed, lambda at: servers[at] in rest)
        # Where the walk is long, most servers are away; rendezvous among the rest is as stable.
        return servers[index] if index >= 0 else _preferred(rest, hashed & _SLOT_MASK)


class LeastConnections:
    """The one with the least in flight over all workers, for its weight; equals in turn."""

    def __init__(self, start: int) -> None:
        self._candidates: Sequence[Server] = ()
        self._next = start

    def arrange(self, candidates: Sequence[Server]) -> None:
        self._candidates = candidates

    def pick(self, key: Key) -> Server | None:
        return self.among(key, self._candidates) if self._candidates else None

    def among(self, key: Key, rest: Sequence[Server]) -> Server:
        if len(rest) > MAX_COMPARED:
            return _least(random.sample(rest, MAX_COMPARED), 0)
        self._next += 1
        return _least(rest, self._next)


class RandomTwo(RoundRobin):
    """Two at random, as often as the weights say, and of those the one with less in flight (Mitzenmacher 2001)."""

    def arrange(self, candidates: Sequence[Server]) -> None:
        super().arrange(candidates)
        self._several = len(candidates) > 1

    def pick(self, key: Key) -> Server | None:
        sequence = self._sequence
        if not sequence or not self._several:
            return sequence[0] if sequence else None
        count = len(sequence)
        first = second = sequence[int(random.random() * count)]
        while second is first:
            second = sequence[int(random.random() * count)]
        return _least((first, second), 0)

    def among(self, key: Key, rest: Sequence[Server]) -> Server:
        return _least(random.sample(rest, min(2, len(rest))), 0)


def make(way: str, start: int, servers: Sequence[Server], table: Sequence[int]) -> Choice:
    """The choice that a configuration's `balance` names; `table` is Maglev's over `servers`."""
    if way == "maglev":
        return Maglev(start, servers, table)
    ways: dict[str, type[RoundRobin | LeastConnections]] = {
        "round_robin": RoundRobin,
        "source_hash": SourceHash,
        "least_connections": LeastConnections,
        "random_two": RandomTwo,
    }
    return ways[way](start)


def _least(servers: Sequence[Server], start: int) -> Server:
    loads = [sum(server.flights) for server in servers]
    return servers[balance.least(loads, [server.weight for server in servers], start)]


def _preferred(servers: Sequence[Server], slot: int) -> Server:
    order = balance.rank(slot, [server.seed for server in servers], [server.weight for server in servers])
    return servers[order[0]]
