"""gRPC over HTTP/2: what the gateway must understand of it (the protocol's doc/PROTOCOL-HTTP2.md).

Calls and their messages pass like any other request. Two things don't: a deadline that its client has set, which the
gateway keeps and tells each server anew; and errors of our own, which a gRPC client reads from a status of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from gateway.errors import PeerError

MAX_DEADLINE: Final = 24 * 3600.0  # seconds; what a client may ask for is 99,999,999 hours

# https://grpc.github.io/grpc/core/md_doc_statuscodes.html
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
# By our own reason where it says more than the status.
_BY_REASON: Final = {
    "answer_timeout": 4,  # DEADLINE_EXCEEDED
    "connect_timeout": UNAVAILABLE,
    "deadline_passed": 4,
    "limited": 8,  # RESOURCE_EXHAUSTED
    "body_too_large": 8,
    "method_refused": 12,
    "token_missing": 16,  # UNAUTHENTICATED
}
# doc/http-grpc-status-mapping.md
_BY_STATUS: Final = {400: INTERNAL, 401: 16, 403: 7, 404: 12, 408: 4, 429: UNAVAILABLE,
                     502: UNAVAILABLE, 503: UNAVAILABLE, 504: UNAVAILABLE}  # fmt: skip
_UNKNOWN: Final = 2
_SECONDS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}

_TYPE: Final = b"content-type: application/grpc"
_TIMEOUT = re.compile(rb"(?<=\r\ngrpc-timeout: )([0-9]{1,8})([HMSmun])(?=\r\n)").search
_SAFE: Final = frozenset(range(0x20, 0x7F)) - {0x25}


def is_call(lines: Sequence[bytes]) -> bool:
    """Whether a request with these header lines (names in lower case, as in HTTP/2) is a gRPC call; gRPC-Web is not."""
    return any(line.startswith(_TYPE) and line[len(_TYPE) : len(_TYPE) + 1] in b";+" for line in lines)


def deadline(payload: bytes) -> float | None:
    """The seconds that the call may take, by its head of HTTP/1.1; None if it does not say so."""
    match = _TIMEOUT(payload, 0, payload.index(b"\r\n\r\n") + 2)
    return None if match is None else min(MAX_DEADLINE, int(match[1]) * _SECONDS[match[2]])


def with_deadline(payload: bytes, seconds: float) -> bytes:
    """The same request with so much time left."""
    match = _TIMEOUT(payload, 0, payload.index(b"\r\n\r\n") + 2)
    if match is None:
        return payload
    return b"%b%dm%b" % (payload[: match.start()], max(1, int(seconds * 1000)), payload[match.end() :])


def status_lines(code: str, status: int, detail: str) -> list[bytes]:
    """The lines of trailers that tell of an error of ours."""
    number = _BY_REASON.get(code) or _BY_STATUS.get(status, _UNKNOWN)
    message = f"{code}: {detail}" if detail else code
    return [b"grpc-status: %d" % number, b"grpc-message: " + _percent(message.encode())]


def refusal(error: PeerError) -> list[bytes]:
    """The head of an answer that is nothing but such trailers ("Trailers-Only")."""
    return [
        b"HTTP/1.1 200 OK",
        b"content-type: application/grpc",
        *status_lines(error.code, error.status, error.detail),
    ]


def _percent(text: bytes) -> bytes:
    """As grpc-message is encoded."""
    return b"".join(b"%c" % octet if octet in _SAFE else b"%%%02X" % octet for octet in text)
