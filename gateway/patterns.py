"""What a route asks of a request: the patterns of paths and hosts, and how two routes compare.

A path is exact ("/login") or a prefix that ends on a segment's border ("/api/user/*", which takes /api/user,
/api/user/ and everything below). A host is exact or a wildcard ("*.example.com", any depth below, not example.com).
"""

from __future__ import annotations

import re
from typing import Any, Protocol, TypeAlias

import attrs

from gateway.errors import PeerError
from gateway.paths import normalise

_HOST = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9._\-]*[a-z0-9_])?|\[[0-9a-f:.]+\]").fullmatch
_TARGET = re.compile(r"/[\x21-\x7e]*").fullmatch


@attrs.frozen
class PathPattern:
    """`path` in its normalised form; of a prefix without the slash at its end ("/*" is "")."""

    path: bytes
    prefix: bool

    def __str__(self) -> str:
        return self.path.decode("ascii") + ("/*" if self.prefix else "")


@attrs.frozen
class HostPattern:
    """`name` in lower case; of a wildcard without the asterisk (".example.com")."""

    name: str
    wildcard: bool


ANY_HOST = HostPattern("", True)


class Conditional(Protocol):
    """As much of a route's table as is compared here."""

    @property
    def path(self) -> str: ...
    @property
    def hosts(self) -> tuple[str, ...]: ...
    @property
    def methods(self) -> tuple[str, ...]: ...
    @property
    def headers(self) -> Any: ...
    @property
    def priority(self) -> int: ...


Condition: TypeAlias = tuple[HostPattern, PathPattern, str, tuple[tuple[str, str], ...], int]


def parse_path(text: str) -> PathPattern:
    """Raises ValueError with what is wrong with it."""
    if not _TARGET(text):
        raise ValueError('a path begins with "/" and has only visible ASCII; write others percent-encoded')
    if "?" in text or "#" in text:
        raise ValueError("a route's path has no query and no fragment")
    prefix = text.endswith("*")
    plain = text.removesuffix("*")
    if "*" in plain:
        raise ValueError('"*" stands only at the end')
    if prefix and not plain.endswith("/"):
        raise ValueError(f'a prefix ends on the border of a segment: "{plain}/*"')
    raw = plain.encode("ascii")
    try:
        path = normalise(raw, encoded_slash=True)
    except PeerError as error:
        raise ValueError(error.detail) from None
    if path != raw:
        raise ValueError(f'requests are matched in normalised form; write "{path.decode()}{"*" if prefix else ""}"')
    return PathPattern(path[:-1] if prefix else path, prefix)


def parse_host(text: str) -> HostPattern:
    """Raises ValueError with what is wrong with it."""
    if text != text.lower():
        raise ValueError("hosts are written in lower case")
    if not _HOST(text) or len(text) > 255:
        raise ValueError('a host is a name such as "api.example.com" or "*.example.com", without a port')
    wildcard = text.startswith("*.")
    return HostPattern(text[1:] if wildcard else text, wildcard)


def conditions(route: Conditional) -> list[Condition]:
    """Every combination that the route answers to; two routes with the same one can't be told apart."""
    hosts = [parse_host(host) for host in route.hosts] or [ANY_HOST]
    path = parse_path(route.path)
    headers = tuple(sorted((name.lower(), value) for name, value in route.headers.items()))
    return [(host, path, method, headers, route.priority) for host in hosts for method in (route.methods or ("",))]
