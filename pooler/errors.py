"""Errors of the pooler: PeerError for what a client did wrong, ServerError for what a PostgreSQL server did.

A PeerError carries the SQLSTATE that the client gets in an ErrorResponse and ends its session; a server's failure
reaches the client as a PeerError too, because the client is who has to be told. Sessions catch both at their one
boundary. Codes are those of PostgreSQL's appendix A.
"""

from __future__ import annotations

import attrs

PROTOCOL_VIOLATION = "08P01"
CONNECTION_FAILURE = "08006"
CANNOT_CONNECT = "08001"
FEATURE_NOT_SUPPORTED = "0A000"
INVALID_PASSWORD = "28P01"
INVALID_AUTHORIZATION = "28000"
INVALID_CATALOG_NAME = "3D000"
TOO_MANY_CONNECTIONS = "53300"
PROGRAM_LIMIT_EXCEEDED = "54000"
QUERY_CANCELED = "57014"
INVALID_PARAMETER_VALUE = "22023"
IDLE_IN_TRANSACTION = "25P03"
ADMIN_SHUTDOWN = "57P01"
CANNOT_CONNECT_NOW = "57P03"
INTERNAL_ERROR = "XX000"


@attrs.define(eq=False)
class PeerError(Exception):
    """The session ends with this ErrorResponse (protocol chapter 55.8: severity, code, message, detail, hint)."""

    sqlstate: str
    message: str
    detail: str = ""
    hint: str = ""
    severity: str = "FATAL"

    def encode(self) -> bytes:
        """The ErrorResponse message as it goes on the wire."""
        return fields(b"E", self.severity, self.sqlstate, self.message, self.detail, self.hint)

    def __str__(self) -> str:
        return f"{self.sqlstate}: {self.message}"


@attrs.define(eq=False)
class ServerError(Exception):
    """A PostgreSQL server refused us, broke the protocol or went away; sqlstate is its own word where it gave one."""

    message: str
    sqlstate: str = CONNECTION_FAILURE

    def __str__(self) -> str:
        return f"{self.sqlstate}: {self.message}"


class ClientLeft(Exception):
    """The client closed its side without a word."""


def shutting_down() -> PeerError:
    """What a session hears that is ended between its transactions."""
    return PeerError(ADMIN_SHUTDOWN, "terminating connection due to administrator command")


def no_message(kind: int, length: int, known: bool) -> PeerError:
    """For what a client's message can't begin with: a type that is not `known`, or a length."""
    what = f"invalid message length {length}" if known else f"invalid frontend message type {kind}"
    return PeerError(PROTOCOL_VIOLATION, what)


def fields(kind: bytes, severity: str, sqlstate: str, message: str, detail: str = "", hint: str = "") -> bytes:
    """An ErrorResponse or NoticeResponse; a NUL in a text would end its field early, so it is dropped."""
    parts = [f"S{severity}", f"V{severity}", f"C{sqlstate}", f"M{message}"]
    if detail:
        parts.append(f"D{detail}")
    if hint:
        parts.append(f"H{hint}")
    body = b"".join(part.replace("\0", "").encode("utf-8", "replace") + b"\0" for part in parts) + b"\0"
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def notice(sqlstate: str, message: str) -> bytes:
    """A NoticeResponse: shown by psql, ignored by most drivers, ends nothing."""
    return fields(b"N", "NOTICE", sqlstate, message)


def decode(payload: bytes) -> dict[str, str]:
    """The fields of a server's ErrorResponse or NoticeResponse by their letter; what is not text is replaced."""
    found: dict[str, str] = {}
    for part in payload.split(b"\0"):
        if part:
            found[chr(part[0])] = part[1:].decode("utf-8", "replace")
    return found
