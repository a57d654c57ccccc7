"""Which route a request takes: compiled to dict lookups, longest and most specific first.

The order of routes that match the same request is: higher `priority`; exact host before wildcard (the longer first)
before any; exact path before prefix (the longer first); with methods before without; with more headers before fewer.
`Router.find` walks that order for one host, method and path; what it found is for the caller to remember.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

import attrs

from gateway.patterns import ANY_HOST, Conditional, HostPattern, PathPattern, parse_host, parse_path

T = TypeVar("T")


@attrs.frozen
class Entry(Generic[T]):
    """One route under one host pattern. `rank` sorts: lower goes first."""

    rank: Any
    methods: frozenset[str]
    headers: tuple[tuple[bytes, bytes | None], ...]
    route: T


@attrs.define(eq=False)
class _Paths(Generic[T]):
    """The routes of one host pattern by path."""

    exact: dict[bytes, list[Entry[T]]] = attrs.field(factory=dict)
    prefix: dict[bytes, list[Entry[T]]] = attrs.field(factory=dict)

    def matching(self, path: bytes) -> Iterable[Entry[T]]:
        yield from self.exact.get(path, ())
        if self.prefix:
            end = len(path)
            while end >= 0:
                yield from self.prefix.get(path[:end], ())
                end = path.rfind(b"/", 0, end)


class Router(Generic[T]):
    """All routes of a configuration. `T` is whatever the caller keeps for a route."""

    def __init__(self, routes: Iterable[tuple[Conditional, T]]) -> None:
        self._exact: dict[str, _Paths[T]] = {}
        self._wildcard: dict[str, _Paths[T]] = {}
        self._any: _Paths[T] = _Paths()
        for number, (table, route) in enumerate(routes):
            path = parse_path(table.path)
            headers = tuple(
                (name.lower().encode(), None if value == "*" else value.encode())
                for name, value in table.headers.items()
            )
            for host in [parse_host(text) for text in table.hosts] or [ANY_HOST]:
                rank = (*_rank(host, path), not table.methods, -len(headers), number)
                entry = Entry((-table.priority, *rank), frozenset(table.methods), headers, route)
                paths = self._paths_of(host)
                (paths.prefix if path.prefix else paths.exact).setdefault(path.path, []).append(entry)

    def _paths_of(self, host: HostPattern) -> _Paths[T]:
        if host is ANY_HOST:
            return self._any
        return (self._wildcard if host.wildcard else self._exact).setdefault(host.name, _Paths())

    def find(self, host: str, method: str, path: bytes) -> list[Entry[T]]:
        """The routes for this request in their order. `host` is in lower case and without port, `path` normalised.

        The list ends with the first that has no condition on headers: what comes after can't be reached.
        """
        found: list[Entry[T]] = []
        for paths in self._for_host(host):
            found += [entry for entry in paths.matching(path) if not entry.methods or method in entry.methods]
        found.sort(key=lambda entry: entry.rank)
        for at, entry in enumerate(found):
            if not entry.headers:
                return found[: at + 1]
        return found

    def _for_host(self, host: str) -> Iterable[_Paths[T]]:
        exact = self._exact.get(host)
        if exact is not None:
            yield exact
        if self._wildcard:
            dot = host.find(".")
            while dot >= 0:
                wildcard = self._wildcard.get(host[dot:])
                if wildcard is not None:
                    yield wildcard
                dot = host.find(".", dot + 1)
        yield self._any


def _rank(host: HostPattern, path: PathPattern) -> tuple[int, int, bool, int]:
    kind = 2 if host is ANY_HOST else 1 if host.wildcard else 0
    return (kind, -len(host.name), path.prefix, -len(path.path))


def first_allowed(entries: Iterable[Entry[T]], fields: Mapping[bytes, bytes]) -> T | None:
    """The first route whose conditions on headers hold; `fields` by lower-case name."""
    for entry in entries:
        for name, value in entry.headers:
            given = fields.get(name)
            if given is None or (value is not None and given != value):
                break
        else:
            return entry.route
    return None


def host_name(host: bytes) -> str:
    """A Host field's value as routes know it: lower case, no port, no dot at the end."""
    text = host.decode("ascii").lower()
    if text.startswith("["):
        return text[: text.find("]") + 1]
    return text.partition(":")[0].rstrip(".")
