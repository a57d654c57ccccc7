"""The answers the gateway gives itself: problem details (RFC 9457) with a reason code and the request id.

The code is the one in the access log and in the metrics. Nothing of the request's own bytes stands in the body.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from gateway.errors import REASONS, PeerError
from gateway.replies import Reply

PHRASES: Final = {status.value: status.phrase.encode() for status in HTTPStatus} | {
    408: b"Request Timeout",
    413: b"Content Too Large",
    499: b"Client Closed Request",
}
_DAYS: Final = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
_MONTHS: Final = (
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
)  # fmt: skip


def http_date(wall: float) -> bytes:
    """An IMF-fixdate (RFC 9110 §5.6.7); strftime would follow the locale."""
    t = time.gmtime(wall)
    return b"%b, %02d %b %04d %02d:%02d:%02d GMT" % (
        _DAYS[t.tm_wday], t.tm_mday, _MONTHS[t.tm_mon - 1], t.tm_year, t.tm_hour, t.tm_min, t.tm_sec,
    )  # fmt: skip


def answer(
    error: PeerError, request_id: bytes, wall: float, *, close: bool, head_request: bool = False,
    fields: Iterable[bytes] = (),
) -> bytes:  # fmt: skip
    """The whole answer, head and body, for the client: a problem, or what a route says by itself."""
    if isinstance(error, Reply):
        return _whole(error, error.body, (), request_id, wall, close, head_request, fields)
    status, title = REASONS[error.code]
    document = {"type": f"urn:portway:problem:{error.code}", "title": title, "status": status, "code": error.code}
    if error.detail:
        document["detail"] = error.detail
    document["request_id"] = request_id.decode()
    body = json.dumps(document, separators=(",", ":")).encode() + b"\n"
    said = [b"Content-Type: application/problem+json", b"Cache-Control: no-store"]
    if error.status == 405:
        said.append(b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
    return _whole(error, body, said, request_id, wall, close, head_request, fields)


def _whole(
    error: PeerError, body: bytes, said: Iterable[bytes], request_id: bytes, wall: float, close: bool,
    head_request: bool, fields: Iterable[bytes],
) -> bytes:  # fmt: skip
    status = error.status
    lines = [
        b"HTTP/1.1 %d %b" % (status, PHRASES.get(status, b"")),
        b"Date: " + http_date(wall),
        *said,
        *([] if status in (204, 304) else [b"Content-Length: %d" % len(body)]),  # RFC 9110 §8.6
        b"X-Request-Id: " + request_id,
        *error.fields,
        *fields,
    ]
    if close:
        lines.append(b"Connection: close")
    return b"\r\n".join([*lines, b"", b""]) + (b"" if head_request else body)
