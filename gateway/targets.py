"""Where a request goes instead of where it came: another path for the server, or another place for its client.

Both are made of the pattern that the route met and of the path in its normalised form, once for each request line. What
comes out is normalised again, so that no rewrite builds a path that routing would have refused.
"""

from __future__ import annotations

from typing import Any

import attrs

from gateway.errors import PeerError
from gateway.paths import normalise
from gateway.patterns import PathPattern, compiled

_PORTS = {"http": 80, "https": 443}


@attrs.frozen
class Rewrite:
    """Another path for the server: whole, by exchanging the prefix that matched, or by an expression."""

    path: bytes | None = None
    prefix: bytes | None = None
    expression: Any = None  # of RE2; what it finds in the path is replaced, all else stays
    replacement: bytes = b""

    def __call__(self, pattern: PathPattern, host: str, path: bytes, query: bytes) -> tuple[bytes, bytes]:
        """The new path. Raises PeerError("bad_path") if that is none."""
        return self.rewritten(pattern, path), b""

    def rewritten(self, pattern: PathPattern, path: bytes) -> bytes:
        if self.path is not None:
            new = self.path
        elif self.prefix is not None:
            new = exchanged(pattern, path, self.prefix)
        elif self.expression is not None:
            new = self.expression.sub(self.replacement, path)
        else:
            return path
        if not new.startswith(b"/"):
            raise PeerError("bad_path", "the rewritten path does not begin with a slash", close=False)
        return normalise(new, encoded_slash=True)  # whether one may pass was decided before


@attrs.frozen
class Redirect:
    """Another place for the client. What is not given stays: a Location without scheme or host is a relative one."""

    scheme: str | None
    host: str | None
    port: int | None
    rewrite: Rewrite
    keep_query: bool

    def __call__(self, pattern: PathPattern, host: str, path: bytes, query: bytes) -> tuple[bytes, bytes]:
        """The path as it came, and the Location. Raises PeerError."""
        target = self.rewrite.rewritten(pattern, path) + (query if self.keep_query else b"")
        name = self.host or host
        if self.scheme is None and self.host is None and self.port is None:
            return path, target
        if not name:
            raise PeerError("bad_host", "no Host, and the redirect needs one")
        port = f":{self.port}" if self.port not in (None, _PORTS.get(self.scheme or "")) else ""
        scheme = f"{self.scheme}:" if self.scheme else ""
        return path, f"{scheme}//{name}{port}".encode("ascii") + target


def exchanged(pattern: PathPattern, path: bytes, prefix: bytes) -> bytes:
    """The path with another prefix: what the pattern took literally is replaced, the rest stays."""
    rest = path[len(pattern.path) :]
    joined = prefix.rstrip(b"/") + rest
    return joined or b"/"


def replacement(text: str, expression: str) -> bytes:
    """The text that an expression's finds are replaced by; \\\\1 to \\\\9 are its groups. Raises ValueError."""
    groups: int = compiled(expression).groups
    rest = text.replace("\\\\", "")
    for part in rest.split("\\")[1:]:
        if not part[:1].isdigit():
            raise ValueError(r"after a backslash comes the number of a group, or another backslash")
        if int(part[0]) > groups:
            raise ValueError(f"the expression has no group {part[0]}")
    if not text.isascii() or not text.isprintable() or " " in text or "?" in text or "#" in text:
        raise ValueError("a path has only visible ASCII, no query and no fragment")
    return text.encode("ascii")
