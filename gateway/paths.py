"""Targets and their paths: one spelling for each, before routing looks at it.

A route that guards /admin/ is worth nothing if /a/../admin/, //admin/ or /%61dmin/ reaches the server around it. So
the path is brought to one form first, and this form is both what routes are matched against and what the server gets.
Where a server might go on decoding (an encoded slash, a backslash, "..;"), the request is refused.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.errors import PeerError

# RFC 3986 §2.3: percent-encoded or not, these mean the same, so they are decoded; everything else stays encoded.
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_ABSOLUTE = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE | re.DOTALL).fullmatch


def split_target(target: bytes, host: bytes | None) -> tuple[bytes, bytes]:
    """Path and query (with its "?", or empty) of a request target (RFC 9112 §3.2); `host` is the Host field's value.

    Raises PeerError for a target that has no path for us.
    """
    if not target.startswith(b"/"):
        match = _ABSOLUTE(target)
        if match is None:
            raise PeerError("bad_request_line", "the target is neither a path nor a URL")
        authority, target = match.groups()
        # §3.2.2 lets the target win over Host. A front that routed by Host would have let it pass to elsewhere, so
        # both must agree.
        if host is None or authority.lower() != host.lower():
            raise PeerError("bad_host", "the target's authority differs from Host")
        if not target.startswith(b"/"):
            target = b"/" + target
    path, mark, query = target.partition(b"?")
    if b"#" in target:
        raise PeerError("bad_request_line", "a fragment does not belong into a request target")
    return path, mark + query


def normalise(path: bytes, *, encoded_slash: bool = False) -> bytes:
    """The path in its one form: escapes, doubled slashes and dot segments resolved (RFC 3986 §6.2.2).

    `encoded_slash` lets %2F pass, still encoded. Raises PeerError for a path that has no one form.
    """
    if b"\\" in path:
        raise PeerError("bad_path", "a backslash, which some servers take for a slash")
    if b"%" in path:
        path = _ESCAPE.sub(_decode, path)
        if b"%00" in path:
            raise PeerError("bad_path", "an encoded NUL")
        if not encoded_slash and (b"%2F" in path or b"%5C" in path):
            raise PeerError("encoded_slash", "an encoded slash or backslash in the path")
    if b"//" in path or b"/." in path:
        path = _without_dots(path)
    # Java servers drop ";parameters" before they resolve dots, and so find dot segments where we saw none.
    if b";" in path and any(part.partition(b";")[0] in (b".", b"..") for part in path.split(b"/")):
        raise PeerError("bad_path", "a dot segment with parameters")
    return path


def _decode(match: re.Match[bytes]) -> bytes:
    digits = match[1]
    if digits is None:
        raise PeerError("bad_path", "a percent sign without two hexadecimal digits")
    code = int(digits, 16)
    return bytes((code,)) if code in _UNRESERVED else b"%" + digits.upper()


def _without_dots(path: bytes) -> bytes:
    kept: list[bytes] = []
    parts = path.split(b"/")[1:]
    for part in parts:
        if part == b"..":
            if not kept:
                raise PeerError("bad_path", "the path leaves the root")
            kept.pop()
        elif part not in (b"", b"."):
            kept.append(part)
    # A path that names a directory goes on naming it: /a/b/.. is /a/.
    slash = b"/" if kept and parts[-1] in (b"", b".", b"..") else b""
    return b"/" + b"/".join(kept) + slash
