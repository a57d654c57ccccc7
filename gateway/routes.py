"""Which route a request takes: compiled to dict lookups, longest and most specific first.

The order of routes that match the same request is: higher `priority`; exact host before wildcard (the longer first)
before any; exact path before the others, of which the longer literal beginning goes first, and an expression before a
prefix of the same length; with methods before without; with more headers and parameters before fewer; the first in the
file. `Router.find` walks that order for one host, method and target; what it found is for the caller to remember.

An Entry can also be asked by itself what it has against a request (`objection`): that is what explains a decision, and
the law between the two is that `find` gives exactly the entries that object to nothing of the request line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, TypeAlias, TypeVar
from urllib.parse import unquote_to_bytes

import attrs

from gateway.patterns import (
    ANY_HOST,
    Conditional,
    HostPattern,
    PathPattern,
    Wanted,
    exclusive,
    hosts_of,
    implied,
    met,
    path_of,
    wanted,
)
from supervisor.ground.net.peernames import fits

T = TypeVar("T")
# Lower goes first: priority, host, its length, path, its length, expression, methods, conditions, place in the file.
Rank: TypeAlias = tuple[int, int, int, bool, int, bool, bool, int, int]


@attrs.frozen
class Entry(Generic[T]):
    """One route under one host pattern."""

    rank: Rank
    host: HostPattern
    path: PathPattern
    methods: frozenset[str]
    query: Wanted
    headers: Wanted
    certificates: tuple[str, ...]  # patterns of names, one of which the client's certificate must have; (): no matter
    route: T

    @property
    def free(self) -> bool:
        """Whether the request line alone decides."""
        return not self.headers and not self.certificates

    def admits(self, given: Mapping[bytes, bytes], peer: str) -> bool:
        """Whether the rest of its conditions hold: for these fields, and a client of this name in its certificate ("":
        it showed none)."""
        return met(self.headers, given) and self.knows(peer)

    def knows(self, peer: str) -> bool:
        """Whether a client with this name in its certificate may come."""
        return not self.certificates or (bool(peer) and any(fits(one, peer) for one in self.certificates))

    def objection(self, host: str, method: str, path: bytes, query: bytes) -> str:
        """The first of its conditions on Host and request line that fails: "host", "path", "method", "query"; "" for
        none."""
        if not self.host.takes(host):
            return "host"
        if not self.path.takes(path):
            return "path"
        if self.methods and method not in self.methods:
            return "method"
        if self.query and not met(self.query, parameters(query)):
            return "query"
        return ""

    def covers(self, other: Entry[T]) -> bool:
        """Whether it certainly takes every request that `other` takes."""
        return (
            self.host.covers(other.host)
            and self.path.covers(other.path)
            and (not self.methods or (bool(other.methods) and other.methods <= self.methods))
            and implied(self.query, other.query)
            and implied(self.headers, other.headers)
            and self.certificates in ((), other.certificates)
        )

    def rivals(self, other: Entry[T]) -> bool:
        """Whether only their places in the file decide between the two, for some requests."""
        return (
            self.rank[:-1] == other.rank[:-1]
            and self.host == other.host
            and self.path == other.path
            and bool(self.methods & other.methods or not (self.methods or other.methods))
            and not exclusive(self.query, other.query)
            and not exclusive(self.headers, other.headers)
        )


@attrs.define(eq=False)
class _Paths(Generic[T]):
    """The routes of one host pattern by path."""

    exact: dict[bytes, list[Entry[T]]] = attrs.field(factory=dict)
    prefix: dict[bytes, list[Entry[T]]] = attrs.field(factory=dict)
    expressions: list[Entry[T]] = attrs.field(factory=list)

    def add(self, entry: Entry[T]) -> None:
        pattern = entry.path
        if pattern.expression is not None:
            self.expressions.append(entry)
        else:
            (self.prefix if pattern.prefix else self.exact).setdefault(pattern.path, []).append(entry)

    def matching(self, path: bytes) -> Iterable[Entry[T]]:
        yield from self.exact.get(path, ())
        if self.prefix:
            end = len(path)
            while end >= 0:
                yield from self.prefix.get(path[:end], ())
                end = path.rfind(b"/", 0, end)
        for entry in self.expressions:
            if entry.path.takes(path):
                yield entry


class Router(Generic[T]):
    """All routes of a configuration. `T` is whatever the caller keeps for a route."""

    def __init__(self, routes: Iterable[tuple[Conditional, T]]) -> None:
        self.entries: list[Entry[T]] = sorted(
            (entry for number, (table, route) in enumerate(routes) for entry in entries(table, route, number)),
            key=_rank,
        )
        self._exact: dict[str, _Paths[T]] = {}
        self._wildcard: dict[str, _Paths[T]] = {}
        self._any: _Paths[T] = _Paths()
        for entry in self.entries:
            self._paths_of(entry.host).add(entry)

    def _paths_of(self, host: HostPattern) -> _Paths[T]:
        if host is ANY_HOST:
            return self._any
        return (self._wildcard if host.wildcard else self._exact).setdefault(host.name, _Paths())

    def find(self, host: str, method: str, path: bytes, query: bytes = b"") -> list[Entry[T]]:
        """The routes for this request in their order. `host` is in lower case and without port, `path` normalised,
        `query` with its question mark.

        The list ends with the first that has no condition beyond these: what comes after can't be reached.
        """
        given: Mapping[bytes, bytes] | None = None
        found: list[Entry[T]] = []
        for paths in self._for_host(host):
            for entry in paths.matching(path):
                if entry.methods and method not in entry.methods:
                    continue
                if entry.query:
                    given = parameters(query) if given is None else given
                    if not met(entry.query, given):
                        continue
                found.append(entry)
        found.sort(key=_rank)
        for at, entry in enumerate(found):
            if entry.free:
                return found[: at + 1]
        return found

    def _for_host(self, host: str) -> Iterable[_Paths[T]]:
        exact = self._exact.get(host)
        if exact is not None:
            yield exact
        if self._wildcard:
            dot = host.find(".", 1)
            while dot >= 0:
                wildcard = self._wildcard.get(host[dot:])
                if wildcard is not None:
                    yield wildcard
                dot = host.find(".", dot + 1)
        yield self._any


def entries(table: Conditional, route: T, number: int) -> Iterable[Entry[T]]:
    """A route's entries, one for each of its hosts; `number` is its place in the file. Raises ValueError."""
    path, methods = path_of(table), frozenset(table.methods)
    query, headers = wanted(table.query, fold=False), wanted(table.headers, fold=True)
    for host in hosts_of(table):
        kind = 2 if host is ANY_HOST else 1 if host.wildcard else 0
        loose = path.prefix or path.expression is not None
        rank = (
            -table.priority, kind, -len(host.name), loose, -len(path.path), path.prefix, not methods,
            -len(headers) - len(query) - bool(table.client_certificates), number,
        )  # fmt: skip
        yield Entry(rank, host, path, methods, query, headers, tuple(table.client_certificates), route)


def _rank(entry: Entry[T]) -> Rank:
    return entry.rank


def parameters(query: bytes) -> dict[bytes, bytes]:
    """The parameters of a query with its question mark, decoded; of a repeated one the first."""
    given: dict[bytes, bytes] = {}
    for part in query[1:].split(b"&"):
        name, _, value = part.partition(b"=")
        given.setdefault(_decoded(name), _decoded(value))
    return given


def _decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" ")) if b"%" in text or b"+" in text else text


def host_name(host: bytes) -> str:
    """A Host field's value as routes know it: lower case, no port, no dot at the end."""
    text = host.decode("ascii").lower()
    if text.startswith("["):
        return text[: text.find("]") + 1]
    return text.partition(":")[0].rstrip(".")
