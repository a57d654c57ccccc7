"""Routes that stand in each other's way: twins, rivals, and those that nothing ever reaches.

All by the entries that requests are routed by. Each comes with the first other that explains it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from gateway.patterns import Conditional, HostPattern, PathPattern
from gateway.routes import Entry, entries

Pairs: TypeAlias = list[tuple[str, str]]  # the route, and the other


def twins(routes: Mapping[str, Conditional]) -> Pairs:
    """Routes with a request for which nothing at all tells them from an earlier one."""
    return _pairs(routes, lambda one, other: _more(one) == _more(other))


def rivals(routes: Mapping[str, Conditional]) -> Pairs:
    """Routes that some requests fit as well as an earlier one, though they ask for different things."""
    return _pairs(routes, lambda one, other: _more(one) != _more(other))


def _more(entry: Entry[str]) -> tuple[object, ...]:
    """Conditions of which a request may meet several."""
    return entry.query, entry.headers, entry.certificates


def unreachable(routes: Mapping[str, Conditional]) -> Pairs:
    """Routes of which every request is taken by one that goes before."""
    own = _entries(routes)
    everything = [entry for group in own.values() for entry in group]
    higher = sorted((entry for entry in everything if entry.rank[0] < 0), key=lambda entry: entry.rank)
    alike = _alike(everything)
    found: Pairs = []
    for name, group in own.items():
        covers = [_cover(entry, (*higher, *alike[entry.host, entry.path])) for entry in group]
        if covers and covers[0] is not None and None not in covers:
            found.append((name, covers[0].route))
    return found


def _cover(entry: Entry[str], before: Iterable[Entry[str]]) -> Entry[str] | None:
    """The first that takes all of an entry's requests. At the same priority, only one with the same host and path can
    go before it and take as much."""
    for one in before:
        if one.rank < entry.rank and one.route != entry.route and one.covers(entry):
            return one
    return None


def _pairs(routes: Mapping[str, Conditional], alike: Callable[[Entry[str], Entry[str]], bool]) -> Pairs:
    found: dict[str, str] = {}
    for group in _alike(entry for own in _entries(routes).values() for entry in own).values():
        for at, entry in enumerate(group):
            for other in group[:at]:
                if entry.route != other.route and entry.rivals(other) and alike(entry, other):
                    found.setdefault(entry.route, other.route)
    return list(found.items())


def _entries(routes: Mapping[str, Conditional]) -> dict[str, list[Entry[str]]]:
    found: dict[str, list[Entry[str]]] = {}
    for number, (name, table) in enumerate(routes.items()):
        try:
            found[name] = [*entries(table, name, number)]
        except ValueError:
            continue  # told by the route itself
    return found


def _alike(everything: Iterable[Entry[str]]) -> dict[tuple[HostPattern, PathPattern], list[Entry[str]]]:
    """By host and path, in the order of the file."""
    groups: dict[tuple[HostPattern, PathPattern], list[Entry[str]]] = defaultdict(list)
    for entry in everything:
        groups[entry.host, entry.path].append(entry)
    return groups
