"""The reasons why a request is not served, and the error that carries one.

A reason code is the word that stands in the answer (RFC 9457 `code`), in the access log and in the metrics, so that an
operator finds all three by one search. `PeerError` is raised by the protocol cores for anything that a client or a
server did wrong; it is caught at one boundary, the session's. Our own mistakes are ordinary exceptions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

# code: (status, title). The title is the same for every occurrence (RFC 9457 §3.1.3); what differs goes into `detail`.
REASONS: Final[Mapping[str, tuple[int, str]]] = MappingProxyType(
    {
        "bad_request_line": (400, "Malformed request line"),
        "bad_field": (400, "Malformed header field"),
        "bad_host": (400, "Missing, repeated or malformed Host"),
        "bad_length": (400, "Ambiguous or malformed Content-Length"),
        "bad_coding": (400, "Ambiguous Transfer-Encoding"),
        "bad_body": (400, "Malformed request body"),
        "bad_path": (400, "Path cannot be normalised"),
        "encoded_slash": (400, "Encoded slash in path"),
        "bad_authorization": (400, "Repeated Authorization"),
        "bad_proxy_header": (400, "PROXY header missing or malformed"),
        "token_missing": (401, "Token required"),
        "token_invalid": (401, "Token not valid"),
        "token_expired": (401, "Token expired"),
        "no_route": (404, "No route"),
        "method_refused": (405, "Method refused"),
        "head_timeout": (408, "Request head too slow"),
        "body_timeout": (408, "Request body too slow"),
        "body_too_large": (413, "Request body too large"),
        "target_too_long": (414, "Request target too long"),
        "expectation_unknown": (417, "Expectation not supported"),
        "limited": (429, "Too many requests"),
        "head_too_large": (431, "Request head too large"),
        "too_many_fields": (431, "Too many header fields"),
        "internal": (500, "Internal error"),
        "coding_unknown": (501, "Transfer coding not supported"),
        "bad_answer": (502, "Malformed answer from the server"),
        "answer_cut": (502, "Server closed before its answer was complete"),
        "connect_failed": (502, "Server could not be reached"),
        "no_server": (503, "No server available"),
        "connect_timeout": (504, "Server did not accept in time"),
        "answer_timeout": (504, "Server did not answer in time"),
        "bad_version": (505, "HTTP version not supported"),
        # These two end an exchange without an answer of ours: they stand in the log alone.
        "client_gone": (499, "Client closed before its answer was complete"),
        "client_timeout": (499, "Client took its answer too slowly"),
        # And these end a stream or a connection of HTTP/2, with a code of its own.
        "http2_error": (400, "HTTP/2 protocol error"),
        "http2_flood": (429, "HTTP/2 frames without end"),
        # These two are no errors: a route answers by itself, with whatever status it says.
        "redirected": (308, "Redirected"),
        "responded": (200, "Answered by the route"),
        # Numbers in the plane go by this order, so what is new stands at the end.
        "tls_failed": (502, "TLS with the server failed"),
        "deadline_passed": (504, "Time for the whole exchange is over"),
        "plain_http": (400, "Plain HTTP on a TLS port"),
        "upgrade_unknown": (501, "Protocol not supported"),
        "forbidden": (403, "Token does not permit it"),
        "keys_missing": (503, "Keys for tokens not there yet"),
        "overloaded": (503, "Overloaded"),
        "server_drained": (503, "Server taken out before its answer was complete"),
    }
)


class PeerError(Exception):
    """A peer broke the protocol or asked for what it can't have; `code` is one of REASONS, `detail` is safe to show.

    `fields` are whole header lines for the answer; `close` says whether the client's connection can't be used after
    it. By default it can when the server is to blame, and can't when the client's bytes are.
    """

    __slots__ = ("close", "code", "detail", "fields", "status")

    def __init__(self, code: str, detail: str = "", *, close: bool | None = None, fields: Sequence[bytes] = ()) -> None:
        super().__init__(code, detail)
        self.code = code
        self.status = REASONS[code][0]
        self.detail = detail
        self.close = self.status not in (502, 503, 504) if close is None else close
        self.fields = fields
