"""A listener's routes at work: the first whose conditions all hold takes the connection.

A condition holds, does not, or can't be told yet. A route is chosen only when every route above it is out, so that the
choice depends on the bytes alone and never on how they were cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

import attrs

from edge.peek.hello import MAX_HELLO, Hello, begins_tls, client_hello
from edge.peek.protocols import DETECTORS, SERVER_FIRST

MAX_PEEKED = MAX_HELLO  # bytes: nothing that is looked for needs more


class Conditions(Protocol):
    """What a route of the configuration asks for; None asks for nothing."""

    @property
    def sni(self) -> str | None: ...
    @property
    def alpn(self) -> str | None: ...
    @property
    def detect(self) -> str | None: ...


class Verdict(Enum):
    """What there is to say when no route is chosen."""

    MORE = "more bytes are needed"
    NOBODY = "no route takes it"


class End(Enum):
    """Why no more bytes are to be waited for."""

    SILENCE = "the client said no more in time"
    CLOSED = "the client's stream ended"


@attrs.define
class Seen:
    """What one look goes by. The hello is read when a route asks for it, once."""

    data: bytes
    end: End | None
    hello: Hello | None  # of TLS that was ended here; else what `data` holds
    _read: bool = attrs.field(default=False, init=False)

    def asked(self, about: Callable[[Hello], bool]) -> bool | None:
        """Whether the hello fulfils `about`. Raises PeekError."""
        if self.hello is None and not self._read:
            self._read = True
            tls = begins_tls(self.data)
            if not tls:
                return None if tls is None else False
            self.hello = client_hello(self.data)
        if self.hello is None:
            return None if begins_tls(self.data) is not False else False
        return about(self.hello)


class Sieve:
    """The routes of one listener, in their order."""

    def __init__(self, routes: Sequence[Conditions]) -> None:
        self._routes = [_tests(route) for route in routes]

    def look(
        self, data: bytes, end: End | None = None, hello: Hello | None = None
    ) -> tuple[int | Verdict, Hello | None]:
        """The number of the route that takes a connection which began with `data`, and the hello as far as it was asked
        for. `hello` is that of TLS which has been ended already; after an `end` there is always a verdict. Raises
        PeekError."""
        if end is None and len(data) >= MAX_PEEKED:
            end = End.SILENCE
        seen = Seen(data, end, hello)
        for number, tests in enumerate(self._routes):
            answers = [test(seen) for test in tests]
            if False in answers:
                continue
            if None not in answers:
                return number, seen.hello
            if end is None:
                return Verdict.MORE, seen.hello
        return Verdict.NOBODY, seen.hello


_Test = Callable[[Seen], bool | None]


def _tests(route: Conditions) -> list[_Test]:
    tests: list[_Test] = []
    if route.detect in SERVER_FIRST:
        tests.append(_silent)
    elif route.detect is not None:
        detector = DETECTORS[route.detect]
        tests.append(lambda seen: detector(seen.data))
    if route.sni is not None:
        tests.append(_asked(_named(route.sni)))
    if route.alpn is not None:
        protocol = route.alpn.encode()
        tests.append(_asked(lambda hello: protocol in hello.protocols))
    return tests


def _asked(about: Callable[[Hello], bool]) -> _Test:
    return lambda seen: seen.asked(about)


def _named(pattern: str) -> Callable[[Hello], bool]:
    if pattern.startswith("*."):
        suffix = pattern[1:]
        return lambda hello: hello.name.endswith(suffix) and len(hello.name) > len(suffix)
    return lambda hello: hello.name == pattern


def _silent(seen: Seen) -> bool | None:
    if seen.data or seen.end is End.CLOSED:
        return False
    return None if seen.end is None else True


def covers(earlier: Conditions, later: Conditions) -> bool:
    """Whether `earlier` takes everything that `later` would: then `later`, below it, never gets anything."""
    if earlier.detect is not None and _kind(earlier) != _kind(later):
        return False
    if earlier.alpn not in (None, later.alpn):
        return False
    if earlier.sni is None or earlier.sni == later.sni:
        return True
    return later.sni is not None and earlier.sni.startswith("*.") and later.sni.endswith(earlier.sni[1:])


def _kind(route: Conditions) -> str | None:
    if route.detect is None:
        return "tls" if route.sni is not None or route.alpn is not None else None
    return "silence" if route.detect in SERVER_FIRST else route.detect
