"""What a request line leads to: its route, the line for the server, its words in the log; remembered.

Request lines repeat, so what parsing, normalising and routing made of one is kept by Host and exact bytes. Correctness
does not depend on it; the memory is bounded and simply emptied when it is full. A request that leads nowhere is not
remembered: those who try every path fill nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

from gateway.errors import PeerError
from gateway.fields import WANTED, Field
from gateway.guard import parse_request_line
from gateway.memo import MAX_BYTES, MAX_LINE, MAX_LINES
from gateway.paths import normalise, split_target
from gateway.routes import Entry, Router, first_allowed, host_name

T = TypeVar("T")

# RFC 9110 §9.2.2: sent twice, they do no more than sent once.
IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PROPFIND", "REPORT", "SEARCH"})
# CONNECT would open a tunnel past everything that is checked here; TRACE shows a client what was added to its request.
REFUSED: Final = frozenset({"CONNECT", "TRACE"})


class Decision(Generic[T]):
    """One request line to one host."""

    __slots__ = ("choices", "head", "idempotent", "line", "log", "route")

    def __init__(self, method: str, host: str, path: bytes, query: bytes, choices: list[Entry[T]]) -> None:
        self.line = method.encode() + b" " + path + query + b" HTTP/1.1"
        self.head = method == "HEAD"
        self.idempotent = method in IDEMPOTENT
        # The query stays out of the log: it is where tokens and names stand.
        self.log = words(method, host, path)
        # Without conditions on headers there is one choice, and it is made.
        self.route: T | None = choices[0].route if len(choices) == 1 and not choices[0].headers else None
        self.choices = choices

    def choose(self, extras: Iterable[Field] | None) -> T:
        """The route, where it depends on headers. Raises PeerError("no_route")."""
        fields: dict[bytes, bytes] = {}
        for kind, _, detail in extras or ():
            if kind == WANTED:
                name, value = detail
                fields[name] = fields[name] + b", " + value if name in fields else value
        route = first_allowed(self.choices, fields)
        if route is None:
            raise PeerError("no_route", "no route takes this request", close=False)
        return route


def words(method: str, host: str, path: bytes) -> str:
    """The request as the access log has it: three members of a JSON object."""
    return f'"method":{json.dumps(method)},"host":{json.dumps(host)},"path":{json.dumps(path.decode("ascii"))}'


class Decisions(Generic[T]):
    """The decisions of one listener. `by_host` is read by the hot path directly: Host's value, then the line."""

    __slots__ = ("_encoded_slash", "_number", "_router", "_size", "by_host")

    def __init__(self, router: Router[T], encoded_slash: bool) -> None:
        self._router = router
        self._encoded_slash = encoded_slash
        self.by_host: dict[bytes | None, dict[bytes, Decision[T]]] = {}
        self._number = 0
        self._size = 0

    def decide(self, line: bytes, host: bytes | None) -> Decision[T]:
        """What this line leads to. Raises PeerError for a malformed or refused one, and for one without a route."""
        method, target, _ = parse_request_line(line)
        if method in REFUSED:
            raise PeerError("method_refused", f"{method} is not served here")
        if target == b"*":
            raise PeerError("no_route", "the whole server is nobody's route", close=False)
        path, query = split_target(target, host)
        path = normalise(path, encoded_slash=self._encoded_slash)
        name = "" if host is None else host_name(host)
        choices = self._router.find(name, method, path)
        if not choices:
            raise PeerError("no_route", "no route takes this host, method and path", close=False)
        decision = Decision(method, name, path, query, choices)
        if len(line) <= MAX_LINE:
            self._remember(line, host, decision)
        return decision

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
