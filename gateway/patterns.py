"""What a route asks of a request: the patterns of paths and hosts, and the conditions beside them.

A path is exact ("/login"), a prefix that ends on a segment's border ("/api/user/*", which takes /api/user, /api/user/
and everything below), or an expression of RE2, which takes the whole path or nothing and can't be made slow. A host is
exact or a wildcard ("*.example.com", any depth below, not example.com).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol, TypeAlias

import attrs
import re2

from gateway.errors import PeerError
from gateway.paths import normalise

MAX_EXPRESSION: Final = 1024  # characters; no path people write by hand comes near
EXPRESSION_MEMORY: Final = 1 << 20  # bytes for one compiled expression; RE2's own default is 8 MiB

_HOST = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9._\-]*[a-z0-9_])?|\[[0-9a-f:.]+\]").fullmatch
_TARGET = re.compile(r"/[\x21-\x7e]*").fullmatch
_META: Final = frozenset(".^$*+?()[]{}|\\")
_REPEATS: Final = frozenset("*?{")  # what makes the character before it one that may be missing


@attrs.frozen
class PathPattern:
    """`path` in its normalised form; of a prefix without the slash at its end ("/*" is ""); of an expression the
    characters that every path it takes begins with. What it ranks by is the length of that."""

    path: bytes
    prefix: bool = False
    expression: str | None = None
    _compiled: Any = attrs.field(default=None, eq=False, repr=False)

    def takes(self, path: bytes) -> bool:
        """Whether a path in its normalised form is one of these."""
        if self._compiled is not None:
            return self._compiled.fullmatch(path) is not None
        if not self.prefix:
            return path == self.path
        return path.startswith(self.path) and path[len(self.path) :][:1] in (b"", b"/")

    def covers(self, other: PathPattern) -> bool:
        """Whether it certainly takes every path that `other` takes; of two expressions only where they are equal."""
        if self.expression is not None:
            exact = other.expression is None and not other.prefix
            return self.takes(other.path) if exact else self.expression == other.expression
        if not self.prefix:
            return self == other
        if other.expression is not None:
            return other.path.startswith(self.path + b"/")
        return self.takes(other.path)

    def __str__(self) -> str:
        if self.expression is not None:
            return self.expression
        return self.path.decode("ascii") + ("/*" if self.prefix else "")


@attrs.frozen
class HostPattern:
    """`name` in lower case; of a wildcard without the asterisk (".example.com")."""

    name: str
    wildcard: bool

    def takes(self, host: str) -> bool:
        """Whether a host, in lower case and without its port, is one of these."""
        if not self.wildcard:
            return host == self.name
        return not self.name or (host.endswith(self.name) and len(host) > len(self.name))

    def covers(self, other: HostPattern) -> bool:
        """Whether it takes every host that `other` takes."""
        if self == ANY_HOST:
            return True
        return self.wildcard and other.name.endswith(self.name) if other.wildcard else self.takes(other.name)

    def __str__(self) -> str:
        return f"*{self.name}" if self.wildcard else self.name


ANY_HOST: Final = HostPattern("", True)


class Conditional(Protocol):
    """As much of a route's table as is compared here."""

    @property
    def path(self) -> str: ...
    @property
    def path_regex(self) -> str | None: ...
    @property
    def hosts(self) -> tuple[str, ...]: ...
    @property
    def methods(self) -> tuple[str, ...]: ...
    @property
    def headers(self) -> Any: ...
    @property
    def query(self) -> Any: ...
    @property
    def client_certificates(self) -> tuple[str, ...]: ...
    @property
    def priority(self) -> int: ...


# Names with the value that each must have; None: it must be there.
Wanted: TypeAlias = tuple[tuple[bytes, bytes | None], ...]


def wanted(written: Mapping[str, str], *, fold: bool) -> Wanted:
    """Conditions on headers or parameters as the configuration has them ("*": any value), sorted; `fold` for names
    without case."""
    return tuple(
        sorted(
            ((name.lower() if fold else name).encode(), None if value == "*" else value.encode())
            for name, value in written.items()
        )
    )


def met(conditions: Wanted, given: Mapping[bytes, bytes]) -> bool:
    """Whether all of them hold."""
    for name, value in conditions:
        found = given.get(name)
        if found is None or (value is not None and found != value):
            return False
    return True


def implied(conditions: Wanted, by: Wanted) -> bool:
    """Whether whatever meets `by` meets these as well."""
    names = {name for name, _ in by}
    return all(name in names if value is None else (name, value) in by for name, value in conditions)


def exclusive(one: Wanted, other: Wanted) -> bool:
    """Whether nothing can meet both."""
    values = {name: value for name, value in one if value is not None}
    return any(value is not None and values.get(name, value) != value for name, value in other)


def compiled(expression: str) -> Any:
    """An expression for RE2. Raises ValueError with what is wrong with it."""
    if len(expression) > MAX_EXPRESSION:
        raise ValueError(f"an expression of more than {MAX_EXPRESSION} characters")
    options = re2.Options()
    options.max_mem = EXPRESSION_MEMORY
    options.log_errors = False
    try:
        return re2.compile(expression.encode(), options)
    except re2.error as error:
        reason = error.args[0]
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"not an expression of RE2: {text}") from None


def literal(expression: str) -> str:
    """The characters that every text an expression takes begins with, as far as they can be read off."""
    depth = 0
    for at, char in enumerate(expression):
        depth += (char == "(") - (char == ")")
        if char == "|" and depth <= 0 and expression[at - 1 : at] != "\\":
            return ""
    text = expression.removeprefix("^")
    end = next((at for at, char in enumerate(text) if char in _META), len(text))
    if end and text[end : end + 1] and text[end] in _REPEATS:
        end -= 1
    return text[:end]


def parse_expression(text: str) -> PathPattern:
    """Raises ValueError with what is wrong with it."""
    beginning = literal(text)
    if not text.removeprefix("^").startswith(("/", "(", "[", ".")):
        raise ValueError('an expression takes the whole path, so it begins with "/"')
    if not beginning.isascii():
        raise ValueError("a path has only visible ASCII; write others percent-encoded")
    return PathPattern(beginning.encode(), expression=text, compiled=compiled(text))


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


def path_of(route: Conditional) -> PathPattern:
    """The pattern of a route's path. Raises ValueError."""
    return parse_path(route.path) if route.path_regex is None else parse_expression(route.path_regex)


def hosts_of(route: Conditional) -> Iterable[HostPattern]:
    """The patterns of a route's hosts; one that takes all if it names none. Raises ValueError."""
    return [parse_host(host) for host in route.hosts] or [ANY_HOST]
