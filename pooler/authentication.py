"""How a client proves who it is: the method that fits what is stored for the user, message by message.

`begin` gives the first message to the client, `answer` takes each of its replies; `proved` ends it. A user who does not
exist goes through the same exchange as one who does, and fails at its end, so that names can't be guessed.
Source: PostgreSQL 55.2.1 "Start-up" and 55.3 "SASL Authentication".
"""

from __future__ import annotations

import os
from enum import Enum

import attrs

from pooler import scram, users
from pooler.errors import INVALID_AUTHORIZATION, INVALID_PASSWORD, PROTOCOL_VIOLATION, PeerError
from pooler.messages import message, text
from pooler.scram import ScramServer
from pooler.users import User, Users

PASSWORD_MESSAGE = ord("p")
OK, CLEARTEXT, MD5, SASL, SASL_CONTINUE, SASL_FINAL = 0, 3, 5, 10, 11, 12
MD5_SALT_SIZE = 4  # bytes


class Method(Enum):
    """[pooler.auth] type, in pg_hba.conf's words."""

    AUTO = "auto"  # SCRAM wherever a password or a SCRAM secret is stored, md5 for an md5 hash
    SCRAM = "scram-sha-256"  # SCRAM only: a user with an md5 hash can't come in
    MD5 = "md5"  # md5, but SCRAM for a user with a SCRAM secret, as in PostgreSQL
    PASSWORD = "password"  # in clear text, over TLS only
    CERT = "cert"  # a certificate that the listener trusts, with the user's name as its common name
    PEER = "peer"  # a Unix socket whose other end belongs to the operating system's user of that name
    TRUST = "trust"  # whoever names a user of the file is believed
    REJECT = "reject"


def request(kind: int, body: bytes = b"") -> bytes:
    """An Authentication message."""
    return message(b"R", kind.to_bytes(4, "big") + body)


@attrs.frozen
class Channel:
    """What the connection itself says: whether it is encrypted, what a proof can be bound to, and who is at its other
    end: by certificate, or by the operating system."""

    secure: bool = False
    binding: bytes | None = None
    subject: str | None = None
    peer: str | None = None


@attrs.define(eq=False)
class Authentication:
    """One client's exchange. `user` is None for a name that is not in the file."""

    name: str
    method: Method
    users: Users = attrs.field(repr=False)
    channel: Channel = attrs.field(factory=lambda: Channel())
    salt: bytes = attrs.field(factory=lambda: os.urandom(MD5_SALT_SIZE))
    proved: bool = False
    user: User | None = None
    _exchange: ScramServer | None = None
    _stored: str = attrs.field(default="", repr=False)  # md5
    _step: int = 0

    def begin(self) -> bytes:
        """The first message, or nothing when the user is believed. Raises PeerError."""
        self.user = user = self.users.find(self.name)
        if self.method is Method.TRUST:
            if user is None:
                raise self._failed()
            self.proved = True
            return b""
        if self.method in (Method.CERT, Method.PEER):
            shown = self.channel.subject if self.method is Method.CERT else self.channel.peer
            if user is None or shown != self.name:
                raise self._failed()
            self.proved = True
            return b""
        if self.method is Method.REJECT:
            raise self._failed()
        if self.method is Method.PASSWORD:
            if not self.channel.secure:
                raise PeerError(INVALID_AUTHORIZATION, "a password in clear text is taken over TLS only")
            return request(CLEARTEXT)
        if self._uses_md5(user):
            assert user is not None
            self._stored = user.md5_hash() or ""
            return request(MD5, self.salt)
        secret = user.scram_secret() if user is not None else None
        if secret is None:
            secret = scram.mock_secret(self.name, self.users.key)
        self._exchange = ScramServer(self.name, secret, self.channel.binding)
        plus = b"" if self.channel.binding is None else scram.MECHANISM_PLUS.encode() + b"\0"
        return request(SASL, plus + scram.MECHANISM.encode() + b"\0\0")

    def _uses_md5(self, user: User | None) -> bool:
        if user is None or user.md5_hash() is None:
            return False
        return self.method is Method.MD5 or (self.method is Method.AUTO and user.scram_secret() is None)

    def answer(self, kind: int, payload: bytes) -> bytes:
        """The next message to the client. Raises PeerError: 28P01 when the proof is wrong."""
        if kind != PASSWORD_MESSAGE:
            raise PeerError(PROTOCOL_VIOLATION, f"expected password response, got message type {kind}")
        if self._exchange is None:
            return self._answer_password(payload)
        self._step += 1
        if self._step == 1:
            self._exchange.plus, data = _initial_response(payload, self.channel.binding is not None)
            return request(SASL_CONTINUE, self._exchange.first(data))
        final = self._exchange.final(payload)
        if self.user is None:  # a mock secret that matched would be a miracle, and is no way in
            raise self._failed()
        if self.user.password is None:
            self.user.keys = self._exchange.keys  # they open a server that keeps the same secret
        self.proved = True
        return request(SASL_FINAL, final)

    def _answer_password(self, payload: bytes) -> bytes:
        response, end = text(payload)
        if end != len(payload):
            raise PeerError(PROTOCOL_VIOLATION, "invalid password packet size")
        if not response:
            raise PeerError(INVALID_PASSWORD, "empty password returned by client")
        if self.method is Method.PASSWORD:
            if not users.password_matches(self.user, self.name, response):
                raise self._failed()
        elif not users.md5_matches(self._stored, self.salt, response):
            raise self._failed()
        self.proved = True
        return b""

    def _failed(self) -> PeerError:
        if self.method is Method.TRUST:
            return PeerError(INVALID_AUTHORIZATION, f'no such user: "{self.name}"')
        if self.method in (Method.CERT, Method.PEER, Method.REJECT):
            what = {Method.CERT: "certificate", Method.PEER: "peer"}.get(self.method)
            said = f"{what} authentication failed" if what else "the rules reject this connection"
            return PeerError(INVALID_AUTHORIZATION, f'{said} for user "{self.name}"')
        return PeerError(INVALID_PASSWORD, f'password authentication failed for user "{self.name}"')


def _initial_response(payload: bytes, bindable: bool) -> tuple[bool, bytes]:
    """Whether the client binds, and the SCRAM message inside a SASLInitialResponse: mechanism, length, data. Raises
    PeerError."""
    mechanism, at = text(payload)
    plus = bindable and mechanism == scram.MECHANISM_PLUS
    if not plus and mechanism != scram.MECHANISM:
        raise PeerError(PROTOCOL_VIOLATION, "client selected an invalid SASL authentication mechanism")
    size = int.from_bytes(payload[at : at + 4], "big", signed=True)
    data = payload[at + 4 :]
    if len(payload) < at + 4 or size != len(data):
        raise PeerError(PROTOCOL_VIOLATION, "malformed SASL initial response")
    return plus, data
