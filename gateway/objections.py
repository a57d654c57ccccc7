"""What each route has against a request, in words: a condition that fails, or another route that goes before it.

The conditions are asked of the entries themselves, which is what the router's lookups are tested against.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.decisions import Decisions, given_fields
from gateway.errors import PeerError
from gateway.guard import Judged
from gateway.patterns import ANY_HOST, Wanted, met
from gateway.plan import Route
from gateway.route_tables import RouteTable
from gateway.routes import Entry, Router

# What the places of a rank are about; a host and a path have several.
_RANKS: Final = ("priority", "host", "host", "path", "path", "path", "methods", "conditions", "place")
# In the order in which they are looked at.
_STAGES: Final = ("host", "path", "method", "query", "headers", "certificate", "")


def objections(
    router: Router[Route], decisions: Decisions[Route], judged: Judged, peer: str, chosen: Route | None
) -> list[tuple[str, str]]:  # fmt: skip
    """Every route that was not chosen, in the order of the file, and why. Empty where no route was asked."""
    try:
        method, host, path, query = decisions.read(judged[0], judged[4])
    except PeerError:
        return []
    given = given_fields(judged[6])

    def stage(entry: Entry[Route]) -> str:
        objection = entry.objection(host, method, path, query)
        if objection:
            return objection
        return "headers" if not met(entry.headers, given) else "" if entry.knows(peer) else "certificate"

    nearest: dict[str, Entry[Route]] = {}  # of each route, the entry that comes nearest to taking the request
    for entry in sorted(router.entries, key=lambda one: (one.rank[-1], -_STAGES.index(stage(one)), one.rank)):
        nearest.setdefault(entry.route.name, entry)
    winner = None if chosen is None else nearest.pop(chosen.name)
    hosts = {name: " or ".join(str(one.host) for one in router.entries if one.route.name == name) for name in nearest}
    return [
        (name, _reason(stage(one), one, winner, host, hosts[name], method, path, given))
        for name, one in nearest.items()
    ]


def _reason(
    stage: str, entry: Entry[Route], winner: Entry[Route] | None, host: str, hosts: str, method: str,
    path: bytes, given: Mapping[bytes, bytes],
) -> str:  # fmt: skip
    if stage == "host":
        return f"host: {host or 'none'} is not {hosts}"
    if stage == "path":
        return f"path: {path.decode()} is not {entry.path}"
    if stage == "method":
        return f"method: {method} is not {' or '.join(sorted(entry.methods))}"
    if stage == "query":
        return "query: it lacks " + ", ".join(_condition(*one) for one in entry.query)
    if stage == "headers":
        return "headers: it lacks " + _unmet(entry.headers, given)
    if stage == "certificate":
        return f"client certificate: it is not for {' or '.join(entry.certificates)}"
    assert winner is not None, "a route that has nothing against the request takes it, or another does"
    return _outranked(entry, winner)


def _unmet(conditions: Wanted, given: Mapping[bytes, bytes]) -> str:
    return ", ".join(_condition(*one) for one in conditions if not met((one,), given))


def _condition(name: bytes, value: bytes | None) -> str:
    return name.decode() if value is None else f"{name.decode()} = {value.decode()}"


def _outranked(entry: Entry[Route], winner: Entry[Route]) -> str:
    """What puts the winner before an entry that would take the request as well."""
    place = next(at for at, (own, better) in enumerate(zip(entry.rank, winner.rank, strict=True)) if own != better)
    about = _RANKS[place]
    name = winner.route.name
    if about == "priority":
        return f"fits, but {name} has the higher priority ({-winner.rank[0]} against {-entry.rank[0]})"
    if about == "host":
        own = "no host" if entry.host == ANY_HOST else entry.host
        return f"fits, but {name} names the host more closely ({winner.host} against {own})"
    if about == "path":
        return f"fits, but {name} names the path more closely ({winner.path} against {entry.path})"
    if about == "methods":
        return f"fits, but {name} names the method"
    if about == "conditions":
        return f"fits, but {name} has more conditions on headers, query and certificate"
    return f"fits, but {name} stands before it in the file"


def conditions(table: RouteTable) -> str:
    """What a route asks for, in words."""
    told = [f"path {table.path_regex or table.path}"]
    told += [f"{name} {', '.join(values)}" for name in ("hosts", "methods") if (values := getattr(table, name))]
    for name in ("headers", "query"):
        told += [f"{name} {key} = {value}" for key, value in getattr(table, name).items()]
    told += [f"client certificate {', '.join(table.client_certificates)}"] if table.client_certificates else []
    return "; ".join(told) + (f"; priority {table.priority}" if table.priority else "")
