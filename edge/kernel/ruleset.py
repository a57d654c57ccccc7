"""What nftables is told: one transaction of commands (libnftables-json(5)) from what is wanted and what was there.

    prerouting, output   the first packet of a flow gets a server: round robin by numgen, source_hash and maglev by a
                         map from the hash of the client's address; the rest of the flow follows by conntrack
    postrouting          its source becomes ours (`masquerade`), so that answers come back this way
    forward, input, output, "tally"   packets and bytes of every server, either way: a nat chain sees first packets only

All of it stands in one table of our own. A flow is ours if conntrack says that it came to the listener's port and goes
to one of its servers, so that no other rule's flows are masqueraded or counted.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs

from supervisor.ground import balance

FAMILY = "inet"
MAGLEV_SLOTS = 4093  # prime; over 100 for each of 40 servers, and a transaction of 0.1 s. The proxy has 65537
SOURCE_SLOTS = 1024  # shares even to about 10 % with 10 servers; each is an element of a map
SEED = 0x506F7274  # of jhash: the same in every run, so that a client finds its server again
COUNTERS = ("new", "in", "out")  # of a listener's server: flows, and what came from clients and from the server

Command = dict[str, Any]


@attrs.frozen
class Target:
    """A server of a listener."""

    name: str  # "pool/host:port"
    row: int  # in the plane
    host: str
    port: int
    weight: int = 1


@attrs.frozen
class Front:
    """A listener. `servers` are all of its pool, in its order; `usable` are those that get new flows."""

    name: str
    row: int  # in the plane
    host: str
    port: int
    protocol: str  # "tcp", "udp"
    balance: str
    servers: tuple[Target, ...]
    usable: tuple[Target, ...]
    masquerade: bool = True
    persist: bool = False

    @property
    def family(self) -> str:
        return "ip6" if ":" in self.host else "ip"

    @property
    def chain(self) -> str:
        return f"listener_{self.row}"

    def chain_of(self, server: Target) -> str:
        return f"listener_{self.row}_server_{server.row}"


def counter_name(front: Front, server: Target, what: str) -> str:
    """The counter of COUNTERS for one server of a listener."""
    return f"{front.chain_of(server)}_{what}"


def transaction(table: str, fronts: Sequence[Front], before: Sequence[Front] | None) -> dict[str, Any]:
    """From what was told last to what is wanted; `before` is None when nothing is known of the table, and then whatever
    stands in it goes. Without `fronts` the table goes."""
    return {"nftables": [*_commands(table, fronts, before)]}


def _commands(table: str, fronts: Sequence[Front], before: Sequence[Front] | None) -> Iterator[Command]:
    whole = {"family": FAMILY, "name": table}
    yield {"add": {"table": whole}}  # so that the next command can't fail
    if before is None or not fronts:
        yield {"delete": {"table": whole}}
        if not fronts:
            return
        yield {"add": {"table": whole}}
    else:
        yield {"flush": {"table": whole}}  # the rules; counters stay
    for name, hook in _BASE_CHAINS.items():
        yield {"add": {"chain": {"family": FAMILY, "table": table, "name": name, **hook}}}
    for name in ("tally", *_chains(fronts)):
        yield {"add": {"chain": {"family": FAMILY, "table": table, "name": name}}}
    for name in _counters(fronts):
        yield {"add": {"counter": {"family": FAMILY, "table": table, "name": name}}}
    for chain, expression in _rules(fronts):
        yield {"add": {"rule": {"family": FAMILY, "table": table, "chain": chain, "expr": expression}}}
    if before is not None:
        kept = {*_chains(fronts), *_counters(fronts)}
        for kind, names in (("chain", _chains(before)), ("counter", _counters(before))):
            for name in names:
                if name not in kept:
                    yield {"delete": {kind: {"family": FAMILY, "table": table, "name": name}}}


# Priorities: libnftables-json(5) has no names for them; dstnat is -100, srcnat 100, filter 0 (nft(8)).
_BASE_CHAINS: dict[str, dict[str, Any]] = {
    "prerouting": {"type": "nat", "hook": "prerouting", "prio": -100, "policy": "accept"},
    "output": {"type": "nat", "hook": "output", "prio": -100, "policy": "accept"},
    "postrouting": {"type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"},
    "forward": {"type": "filter", "hook": "forward", "prio": 0, "policy": "accept"},
    "received": {"type": "filter", "hook": "input", "prio": 0, "policy": "accept"},
    "sent": {"type": "filter", "hook": "output", "prio": 0, "policy": "accept"},
}


def _chains(fronts: Iterable[Front]) -> list[str]:
    """Those that are jumped from come first: of those to be deleted none may be referred to any more."""
    listeners = [front.chain for front in fronts]
    return [*listeners, *(front.chain_of(server) for front in fronts for server in front.servers)]


def _counters(fronts: Iterable[Front]) -> list[str]:
    return [counter_name(front, server, what) for front in fronts for server in front.servers for what in COUNTERS]


def _rules(fronts: Iterable[Front]) -> Iterator[tuple[str, list[Any]]]:
    """Chain and expression of every rule."""
    ours = {"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}}
    outside = {"match": {"op": "!=", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}
    yield "forward", [ours, _jump("tally")]
    yield "received", [outside, ours, _jump("tally")]  # on lo it has been counted as sent
    yield "sent", [ours, _jump("tally")]
    for front in [front for front in fronts if front.servers]:
        if front.usable:
            for chain in ("prerouting", "output"):
                yield chain, [*_to(front), _dnat(front)]
        if front.masquerade:
            yield "postrouting", [ours, *_came_to(front), _one_of(front), {"masquerade": None}]
        yield "tally", [*_came_to(front), _jump(front.chain)]
        for direction, address, port in (("original", "daddr", "dport"), ("reply", "saddr", "sport")):
            data = [[_place(server), _jump(front.chain_of(server))] for server in front.servers]
            verdicts = {"vmap": {"key": _key(front, address, port), "data": {"set": data}}}
            yield front.chain, [_direction(direction), verdicts]
        for server in front.servers:
            new, arriving, leaving = (counter_name(front, server, what) for what in COUNTERS)
            chain = front.chain_of(server)
            yield chain, [_direction("reply"), {"counter": leaving}, {"return": None}]
            yield chain, [{"counter": arriving}]
            yield chain, [{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}}, {"counter": new}]


def _to(front: Front) -> Iterator[Any]:
    """The first packet of a flow to the listener. TCP: its SYN, so that what comes of a connection whose entry is gone
    meets no server that never knew it, but our own reset."""
    if front.host in ("0.0.0.0", "::"):
        yield {"match": {"op": "==", "left": {"meta": {"key": "nfproto"}}, "right": _NFPROTO[front.family]}}
        yield {"match": {"op": "==", "left": {"fib": {"result": "type", "flags": ["daddr"]}}, "right": "local"}}
    else:
        yield {"match": {"op": "==", "left": _field(front.family, "daddr"), "right": front.host}}
    yield {"match": {"op": "==", "left": _field(front.protocol, "dport"), "right": front.port}}
    if front.protocol == "tcp":
        flags = {"&": [_field("tcp", "flags"), ["fin", "syn", "rst", "ack"]]}
        yield {"match": {"op": "==", "left": flags, "right": "syn"}}


_NFPROTO = {"ip": "ipv4", "ip6": "ipv6"}


def _dnat(front: Front) -> Any:
    """One of the usable servers."""
    chosen = slots(front)
    if len({server.name for server in chosen}) == 1:
        return {"dnat": {"family": front.family, "addr": chosen[0].host, "port": chosen[0].port}}
    if front.balance == "round_robin":
        key: Any = {"numgen": {"mode": "inc", "mod": len(chosen), "offset": 0}}
    else:
        key = {"jhash": {"mod": len(chosen), "seed": SEED, "expr": _field(front.family, "saddr")}}
    elements = [[number, _place(server)] for number, server in enumerate(chosen)]
    return {"dnat": {"family": front.family, "addr": {"map": {"key": key, "data": {"set": elements}}}}}


@functools.lru_cache(maxsize=256)
def slots(front: Front) -> list[Target]:
    """The server of every number that the balancing may come to. A server that goes moves only its own, and with
    round_robin, which has no memory, the order."""
    usable = list(front.usable)
    if front.balance == "round_robin":
        return [usable[at] for at in balance.schedule([server.weight for server in usable])]
    if front.balance == "source_hash":
        seeds, weights = [balance.seed(server.name) for server in usable], [server.weight for server in usable]
        return [usable[balance.rank(slot, seeds, weights)[0]] for slot in range(SOURCE_SLOTS)]
    names = {server.name for server in usable}
    every = list(front.servers)
    table = balance.maglev([server.name for server in every], [server.weight for server in every], MAGLEV_SLOTS)
    found = []
    for slot in range(MAGLEV_SLOTS):
        index = balance.probe(table, slot * _SPREAD, lambda at: every[at].name in names)
        found.append(every[index] if index >= 0 else usable[slot % len(usable)])
    return found


# A slot as the key of a walk that begins at the slot and takes a step of its own: slot modulo the table's size.
_SPREAD = 1 + MAGLEV_SLOTS * 977


def _came_to(front: Front) -> Iterator[Any]:
    """A flow whose first packet came to the listener."""
    if front.host in ("0.0.0.0", "::"):
        yield {"match": {"op": "==", "left": {"meta": {"key": "nfproto"}}, "right": _NFPROTO[front.family]}}
    else:
        came_to = {"ct": {"key": f"{front.family} daddr", "dir": "original"}}
        yield {"match": {"op": "==", "left": came_to, "right": front.host}}
    yield {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": front.protocol}}
    yield {"match": {"op": "==", "left": {"ct": {"key": "proto-dst", "dir": "original"}}, "right": front.port}}


def _one_of(front: Front) -> Any:
    places = [_place(server) for server in front.servers]
    return {"match": {"op": "==", "left": _key(front, "daddr", "dport"), "right": {"set": places}}}


def _key(front: Front, address: str, port: str) -> Any:
    return {"concat": [_field(front.family, address), _field("th", port)]}


def _place(server: Target) -> Any:
    return {"concat": [server.host, server.port]}


def _field(protocol: str, name: str) -> Any:
    return {"payload": {"protocol": protocol, "field": name}}


def _direction(name: str) -> Any:
    return {"match": {"op": "==", "left": {"ct": {"key": "direction"}}, "right": name}}


def _jump(chain: str) -> Any:
    return {"jump": {"target": chain}}
