"""The first packet of a connection: SSLRequest, GSSENCRequest, CancelRequest or StartupMessage. No type byte, so its
own parser.

Owns what may stand in that packet and what the pooler makes of its parameters; who the user is stands in
`authentication`. Source: PostgreSQL documentation 55.2.1 "Start-up" and 55.7, and backend_startup.c for what the
documentation leaves out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import attrs

from pooler.errors import (
    FEATURE_NOT_SUPPORTED,
    INVALID_AUTHORIZATION,
    INVALID_PARAMETER_VALUE,
    PROTOCOL_VIOLATION,
    PeerError,
)
from pooler.parameters import TRACKED
from pooler.walsender import Replication

MAX_STARTUP_PACKET = 10_000  # bytes; PostgreSQL's MAX_STARTUP_PACKET_LENGTH
MIN_CANCEL_SECRET = 4  # bytes; protocol 3.0
MAX_CANCEL_SECRET = 256  # bytes; protocol 3.2

PROTOCOL_3_0 = 3 << 16
PROTOCOL_3_2 = 3 << 16 | 2
CANCEL_CODE = 80877102
SSL_CODE = 80877103
GSSENC_CODE = 80877104

REFUSED = b"N"  # the one-byte answer to SSLRequest and GSSENCRequest: go on without
ACCEPTED_TLS = b"S"


@attrs.frozen
class SSLRequest:
    """Wants TLS before anything else."""


@attrs.frozen
class GSSENCRequest:
    """Wants Kerberos encryption, which no pooler speaks: it is told no and goes on."""


@attrs.frozen
class CancelRequest:
    """Names the connection whose running query is to be cancelled; the whole of its own connection."""

    pid: int
    secret: bytes = attrs.field(repr=False)


@attrs.frozen
class Startup:
    """A client that wants a session; `settings` are run-time parameters, from the packet and its `options`."""

    minor: int
    user: str
    database: str
    settings: Mapping[str, str]
    protocol_options: tuple[str, ...]
    replication: Replication = Replication.NONE

    @property
    def spoken(self) -> int:
        """The protocol version that the session will speak: what was asked for, 3.2 at most."""
        return PROTOCOL_3_0 | min(self.minor, 2)

    @property
    def to_negotiate(self) -> bool:
        """Whether NegotiateProtocolVersion is due: a newer minor version, or protocol options, none of which exist
        here."""
        return self.minor > 2 or bool(self.protocol_options)


# The words of a boolean, and how much of each must be there.
_REPLICATION = {
    (("true", 1), ("yes", 1), ("on", 2), ("1", 1)): Replication.PHYSICAL,
    (("false", 1), ("no", 1), ("off", 2), ("0", 1)): Replication.NONE,
}
_PARAMETER = re.compile(r"[A-Za-z_][\w$]*(?:\.[A-Za-z_][\w$]*)*")

First = SSLRequest | GSSENCRequest | CancelRequest | Startup


def receive(buffer: bytearray) -> First | None:
    """Takes the first packet off the buffer, or None while it is not all there. Raises PeerError."""
    if len(buffer) < 4:
        return None
    size = int.from_bytes(buffer[:4], "big")
    if not 8 <= size <= MAX_STARTUP_PACKET:
        raise PeerError(PROTOCOL_VIOLATION, "invalid length of startup packet")
    if len(buffer) < size:
        return None
    body = bytes(buffer[4:size])
    del buffer[:size]
    code = int.from_bytes(body[:4], "big")
    if code in (SSL_CODE, GSSENC_CODE):
        if len(body) != 4:
            raise PeerError(PROTOCOL_VIOLATION, "invalid length of startup packet")
        # CVE-2021-23214: what stands behind the request came before any encryption, perhaps from someone in the middle.
        if buffer:
            what = "SSL" if code == SSL_CODE else "GSSAPI encryption"
            raise PeerError(PROTOCOL_VIOLATION, f"received unencrypted data after {what} request")
        return SSLRequest() if code == SSL_CODE else GSSENCRequest()
    if code == CANCEL_CODE:
        if not MIN_CANCEL_SECRET <= len(body) - 8 <= MAX_CANCEL_SECRET:
            raise PeerError(PROTOCOL_VIOLATION, "invalid length of cancel request")
        return CancelRequest(int.from_bytes(body[4:8], "big"), body[8:])
    if code >> 16 != 3:
        raise PeerError(
            FEATURE_NOT_SUPPORTED,
            f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}: server supports 3.0 to 3.2",
        )
    return _startup(code & 0xFFFF, body[4:])


def _startup(minor: int, body: bytes) -> Startup:
    user = database = ""
    settings: dict[str, str] = {}
    options: list[str] = []
    replication = Replication.NONE
    for name, value in _pairs(body):
        if name == "user":
            user = value
        elif name == "database":
            database = value
        elif name == "options":
            settings.update(parse_options(value))
        elif name == "replication":
            replication = _replication(value)
        elif name.startswith("_pq_."):
            options.append(name)
        else:
            settings[name] = value
    if not user:
        raise PeerError(INVALID_AUTHORIZATION, "no PostgreSQL user name specified in startup packet")
    return Startup(minor, user, database or user, settings, tuple(options), replication)


def _replication(value: str) -> Replication:
    """Raises PeerError. A boolean may be cut short, as PostgreSQL's parse_bool has it."""
    found = [
        meaning
        for words, meaning in _REPLICATION.items()
        for word, least in words
        if len(value) >= least and word.startswith(value.lower())
    ]
    if value == "database":
        return Replication.LOGICAL
    if not found:
        raise PeerError(
            INVALID_PARAMETER_VALUE,
            f'invalid value for parameter "replication": "{value}"',
            hint='Valid values are: "false", 0, "true", 1, "database".',
        )
    return found[0]


def _pairs(body: bytes) -> list[tuple[str, str]]:
    """Name and value pairs up to the empty name that must be the packet's last byte."""
    parts = body.split(b"\0")
    # "a\0b\0\0" splits into a, b, "", "": the terminator, and nothing behind it.
    if len(parts) < 2 or len(parts) % 2 or parts[-1] or parts[-2] or not all(parts[:-2:2]):
        raise PeerError(PROTOCOL_VIOLATION, "invalid startup packet layout: expected terminator as last byte")
    try:
        texts = [part.decode() for part in parts[:-2]]
    except UnicodeDecodeError:
        raise PeerError(PROTOCOL_VIOLATION, "invalid byte sequence in startup packet") from None
    return list(zip(texts[::2], texts[1::2], strict=True))


def parse_options(text: str) -> dict[str, str]:
    """The settings in a startup packet's `options`: `-c name=value` and `--name=value`, backslash before a space in a
    value.

    Other command-line switches are for the postgres program; a session behind a pooler can't have them. Raises
    PeerError.
    """
    words = _split_options(text)
    settings: dict[str, str] = {}
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "-c" and at < len(words):
            word = words[at]
            at += 1
        elif word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            word = name.replace("-", "_") + equals + value  # --search-path=... is spelled with dashes
        elif word.startswith("-c"):
            word = word[2:]
        else:
            raise PeerError(FEATURE_NOT_SUPPORTED, f'unsupported option in startup packet: "{word}"')
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise PeerError(PROTOCOL_VIOLATION, f'invalid option in startup packet: "{word}" is not name=value')
        settings[name.strip()] = value
    return settings


def _split_options(text: str) -> list[str]:
    """Words between white space, as pg_split_opts does: a backslash takes the next character as it is."""
    words: list[str] = []
    word: list[str] | None = None
    escaped = False
    for character in text:
        if not escaped and character.isspace():
            if word is not None:
                words.append("".join(word))
                word = None
            continue
        if word is None:
            word = []
        if not escaped and character == "\\":
            escaped = True
        else:
            word.append(character)
            escaped = False
    if word is not None:
        words.append("".join(word))
    return words


def admit(settings: Mapping[str, str], reported: Collection[str], ignored: Collection[str]) -> dict[str, str]:
    """The settings that the session will keep on whatever server it gets: those that the server has reported under its
    names for them, others in lower case. Raises PeerError for what is no name."""
    kept: dict[str, str] = {}
    for name, value in settings.items():
        canonical = TRACKED.get(name.lower())
        if canonical is not None and canonical in reported:
            kept[canonical] = _clean(canonical, value)
        elif not _PARAMETER.fullmatch(name):
            raise PeerError(PROTOCOL_VIOLATION, f"unsupported startup parameter: {name}")
        elif name.lower() not in ignored:
            kept[name.lower()] = value
    return kept


def _clean(name: str, value: str) -> str:
    """PostgreSQL shows what is not printable ASCII in an application_name as "?"; no other kept setting needs such
    bytes."""
    if value.isascii() and value.isprintable():
        return value
    if name == "application_name":
        return "".join(c if c.isascii() and c.isprintable() else "?" for c in value)
    raise PeerError(PROTOCOL_VIOLATION, f"invalid value for startup parameter {name}")
