"""What a request line leads to: its route, the line for the server, its words in the log; remembered.

Request lines repeat, so what parsing, normalising and routing made of one is kept by Host and exact bytes. Correctness
does not depend on it; the memory is bounded and simply emptied when it is full. A request that leads nowhere is not
remembered: those who try every path fill nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Generic, TypeAlias, TypeVar

from gateway.errors import PeerError
from gateway.fields import WANTED, Field
from gateway.guard import parse_request_line
from gateway.memo import MAX_BYTES, MAX_LINE, MAX_LINES
from gateway.paths import normalise, split_target
from gateway.patterns import PathPattern
from gateway.routes import Entry, Router, host_name

T = TypeVar("T")
# What a route makes of the pattern that was met, host, path and query: the path for the server, and a Location or b"".
Target: TypeAlias = Callable[[PathPattern, str, bytes, bytes], tuple[bytes, bytes]]

# RFC 9110 §9.2.2: sent twice, they do no more than sent once.
IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PROPFIND", "REPORT", "SEARCH"})
# CONNECT would open a tunnel past everything that is checked here; TRACE shows a client what was added to its request.
REFUSED: Final = frozenset({"CONNECT", "TRACE"})


class Decision(Generic[T]):
    """One request line to one host, and one route for it; `route` is None where more decides (see `choose`).

    `line` is for the server, the path rewritten if the route says so; `location` is where a redirect leads.
    """

    __slots__ = ("choices", "head", "idempotent", "line", "location", "log", "route")

    def __init__(self, method: str, line: bytes, log: str, route: T | None, location: bytes = b"") -> None:
        self.line = line
        self.head = method == "HEAD"
        self.idempotent = method in IDEMPOTENT
        self.log = log
        self.route = route
        self.location = location
        self.choices: tuple[tuple[Entry[T], Decision[T]], ...] = ()

    def choose(self, extras: Iterable[Field] | None, peer: str = "") -> Decision[T]:
        """The decision for these headers, and for a client of this name in its certificate ("": it showed none); it
        has a route. Raises PeerError("no_route")."""
        given = given_fields(extras)
        for entry, decision in self.choices:
            if entry.admits(given, peer):
                return decision
        raise PeerError("no_route", "no route takes a request with these headers from this client", close=False)


def given_fields(extras: Iterable[Field] | None) -> dict[bytes, bytes]:
    """The fields that routes look at, by lower-case name; of a repeated one the values as one list."""
    fields: dict[bytes, bytes] = {}
    for kind, _, detail in extras or ():
        if kind == WANTED:
            name, value = detail
            fields[name] = fields[name] + b", " + value if name in fields else value
    return fields


def words(method: str, host: str, path: bytes) -> str:
    """The request as the access log has it: three members of a JSON object."""
    return f'"method":{json.dumps(method)},"host":{json.dumps(host)},"path":{json.dumps(path.decode("ascii"))}'


class Decisions(Generic[T]):
    """The decisions of one listener. `by_host` is read by the hot path directly: Host's value, then the line.

    `targets` has the routes that send a request to another path, or its client elsewhere.
    """

    __slots__ = ("_encoded_slash", "_number", "_router", "_size", "_targets", "by_host")

    def __init__(self, router: Router[T], encoded_slash: bool, targets: Mapping[T, Target] | None = None) -> None:
        self._router = router
        self._encoded_slash = encoded_slash
        self._targets = targets or {}
        self.by_host: dict[bytes | None, dict[bytes, Decision[T]]] = {}
        self._number = 0
        self._size = 0

    def decide(self, line: bytes, host: bytes | None) -> Decision[T]:
        """What this line leads to. Raises PeerError for a malformed or refused one, and for one without a route."""
        method, name, path, query = self.read(line, host)
        choices = self._router.find(name, method, path, query)
        if not choices:
            raise PeerError("no_route", "no route takes this host, method and path", close=False)
        # The query stays out of the log: it is where tokens and names stand.
        log = words(method, name, path)
        made = [self._decision(entry, method, name, path, query, log) for entry in choices]
        if len(choices) == 1 and choices[0].free:
            decision = made[0]
        else:
            decision = Decision(method, made[0].line, log, None)
            decision.choices = tuple(zip(choices, made, strict=True))
        if len(line) <= MAX_LINE:
            self._remember(line, host, decision)
        return decision

    def read(self, line: bytes, host: bytes | None) -> tuple[str, str, bytes, bytes]:
        """Method, host, path and query as routes know them. Raises PeerError for a malformed or refused line."""
        method, target, _ = parse_request_line(line)
        if method in REFUSED:
            raise PeerError("method_refused", f"{method} is not served here")
        if target == b"*":
            raise PeerError("no_route", "the whole server is nobody's route", close=False)
        path, query = split_target(target, host)
        path = normalise(path, encoded_slash=self._encoded_slash)
        return method, "" if host is None else host_name(host), path, query

    def _decision(
        self, entry: Entry[T], method: str, host: str, path: bytes, query: bytes, log: str
    ) -> Decision[T]:  # fmt: skip
        target = self._targets.get(entry.route)
        location = b""
        if target is not None:
            path, location = target(entry.path, host, path, query)
        return Decision(method, method.encode() + b" " + path + query + b" HTTP/1.1", log, entry.route, location)

    def _remember(self, line: bytes, host: bytes | None, decision: Decision[T]) -> None:
        if self._number >= MAX_LINES or self._size + len(line) > MAX_BYTES:
            self.by_host.clear()
            self._number = self._size = 0
        self.by_host.setdefault(host, {})[line] = decision
        self._number += 1
        self._size += len(line)


def undecided_words(line: bytes, host: bytes | None) -> str:
    """The log's words for a request that got no decision, as far as it can be understood."""
    try:
        method, target, _ = parse_request_line(line)
    except PeerError:
        return '"method":null,"host":null,"path":null'
    path = target.partition(b"?")[0][:1024]
    return words(method, "" if host is None else host_name(host), path)
