"""Framing of the PostgreSQL protocol 3: a type byte, a length that counts itself, a payload; and the messages we write.

Owns where a message begins and ends, and how the few messages that the pooler makes itself are laid out. What a message
means for the connection stands in `states`; the startup packet, which has no type byte, in `startup`. Source:
PostgreSQL documentation, chapter 55.7 "Message Formats".
"""

from __future__ import annotations

from struct import Struct

from pooler.errors import PROTOCOL_VIOLATION, PeerError, ServerError

HEAD = Struct(">BI")  # type byte, length without the type byte
HEAD_SIZE = 5
# A server's message while logging in: AuthenticationSASL lists mechanisms, ParameterStatus carries a value; 64 KiB is
# far above both, and a peer that is no PostgreSQL shows itself by a wild length here.
MAX_LOGIN_MESSAGE = 64 * 1024
# PostgreSQL's own limit of a client's password message (libpq-be: PG_MAX_AUTH_TOKEN_LENGTH).
MAX_PASSWORD_MESSAGE = 65535

AUTHENTICATION_OK = b"R\0\0\0\x08\0\0\0\0"
READY_IDLE = b"Z\0\0\0\x05I"
FLUSH = b"H\0\0\0\x04"
SYNC = b"S\0\0\0\x04"
TERMINATE = b"X\0\0\0\x04"


def message(kind: bytes, payload: bytes = b"") -> bytes:
    """One message of this kind."""
    return kind + (len(payload) + 4).to_bytes(4, "big") + payload


def query(sql: str) -> bytes:
    """A simple Query."""
    return message(b"Q", sql.encode("utf-8", "surrogateescape") + b"\0")


def parameter_status(name: str, value: str) -> bytes:
    """ParameterStatus, as the server sends it at login and whenever the value changes."""
    return message(b"S", f"{name}\0{value}\0".encode("utf-8", "surrogateescape"))


def backend_key_data(pid: int, secret: bytes) -> bytes:
    """BackendKeyData; the secret is 4 bytes in protocol 3.0, up to 256 in 3.2."""
    return message(b"K", pid.to_bytes(4, "big") + secret)


def negotiate_protocol_version(newest: int, unknown_options: list[str]) -> bytes:
    """NegotiateProtocolVersion: the newest version we speak (major and minor) and the `_pq_.` options that we don't."""
    body = newest.to_bytes(4, "big") + len(unknown_options).to_bytes(4, "big")
    return message(b"v", body + b"".join(option.encode() + b"\0" for option in unknown_options))


def take_from_client(buffer: bytearray, limit: int) -> tuple[int, bytes] | None:
    """Takes one whole message off the front of the buffer, or None while it is not all there (login only).

    Raises PeerError for a length that is impossible or above the limit, in bytes.
    """
    if len(buffer) < HEAD_SIZE:
        return None
    kind, size = HEAD.unpack_from(buffer)
    if not 4 <= size <= limit:
        raise PeerError(PROTOCOL_VIOLATION, "invalid message length")
    if len(buffer) <= size:
        return None
    payload = bytes(buffer[HEAD_SIZE : size + 1])
    del buffer[: size + 1]
    return kind, payload


def take_from_server(buffer: bytearray) -> tuple[int, bytes] | None:
    """The same for a server's message; raises ServerError, for it is the server that is no PostgreSQL then."""
    try:
        return take_from_client(buffer, MAX_LOGIN_MESSAGE)
    except PeerError as error:
        raise ServerError(f"the server does not speak the PostgreSQL protocol ({error.message})") from None


def text(payload: bytes, start: int = 0) -> tuple[str, int]:
    """A zero-terminated string and the offset behind it; raises PeerError when the zero is missing or it is no
    UTF-8."""
    end = payload.find(b"\0", start)
    if end < 0:
        raise PeerError(PROTOCOL_VIOLATION, "invalid string in message")
    try:
        return payload[start:end].decode(), end + 1
    except UnicodeDecodeError:
        raise PeerError(PROTOCOL_VIOLATION, "invalid byte sequence in a string") from None


def parse_parameter_status(payload: bytes) -> tuple[str, str]:
    """Name and value; a value that is not UTF-8 keeps its bytes by surrogates, so that it can be sent on unchanged."""
    name, _, value = payload.partition(b"\0")
    if not value.endswith(b"\0"):
        raise ServerError("malformed ParameterStatus from the server")
    return name.decode("utf-8", "replace"), value[:-1].decode("utf-8", "surrogateescape")


def columns(payload: bytes) -> list[str | None]:
    """The values of a DataRow in text format; None is NULL. Bytes that are not UTF-8 are kept by surrogates. Raises
    ServerError for one that is cut short."""
    values: list[str | None] = []
    at = 2
    for _ in range(int.from_bytes(payload[:2], "big")):
        size = int.from_bytes(payload[at : at + 4], "big", signed=True)
        at += 4
        if at + max(size, 0) > len(payload):
            raise ServerError("malformed DataRow from the server")
        values.append(None if size < 0 else payload[at : at + size].decode("utf-8", "surrogateescape"))
        at += max(size, 0)
    return values


def what_and_name(data: bytes, at: int, end: int) -> tuple[int, bytes]:
    """The kind and the name in a Describe or Close from `at` to `end`; raises PeerError for one that is cut short."""
    if data.find(b"\0", at + HEAD_SIZE + 1, end) != end - 1:
        raise PeerError(PROTOCOL_VIOLATION, "invalid string in message")
    return data[at + HEAD_SIZE], data[at + HEAD_SIZE + 1 : end - 1]
