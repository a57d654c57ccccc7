"""How we log in to a PostgreSQL server: startup, its authentication, its parameters, its key, until it is ready.

`begin` gives what to send first, `receive` takes each message and gives what to send next; `ready` ends it.
Cleartext passwords are refused: the connection to the server is not encrypted. Everything that goes wrong is a
ServerError with the server's own SQLSTATE where it gave one. Source: PostgreSQL 55.2.1 "Start-up".
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from pooler import errors, scram
from pooler.authentication import CLEARTEXT, MD5, OK, SASL, SASL_CONTINUE, SASL_FINAL
from pooler.errors import FEATURE_NOT_SUPPORTED, INVALID_PASSWORD, PROTOCOL_VIOLATION, ServerError
from pooler.messages import message, parse_parameter_status
from pooler.scram import ScramClient
from pooler.startup import CANCEL_CODE, PROTOCOL_3_0
from pooler.users import User, md5_response

MAX_SECRET = 256  # bytes; protocol 3.2


@attrs.define(eq=False)
class Login:
    """One login. Afterwards `parameters`, `pid` and `secret` hold what the server said."""

    user: User
    database: str
    secure: bool = False  # the connection is encrypted
    binding: bytes | None = None  # to what a proof can be bound
    settings: Mapping[str, str] = attrs.field(factory=dict)  # to be told at once
    ready: bool = False
    parameters: dict[str, str] = attrs.field(factory=dict)
    pid: int = 0
    secret: bytes = attrs.field(default=b"", repr=False)
    _exchange: ScramClient | None = None
    _verified: bool = False  # the server's proof was seen
    _authenticated: bool = False

    def begin(self) -> bytes:
        """The StartupMessage. Parameters of clients are set later, for whoever uses the connection, unless it belongs
        to one."""
        pairs = ["user", self.user.name, "database", self.database]
        pairs += [word for pair in self.settings.items() for word in pair]
        body = PROTOCOL_3_0.to_bytes(4, "big") + "".join(f"{word}\0" for word in pairs).encode() + b"\0"
        return (len(body) + 4).to_bytes(4, "big") + body

    def receive(self, kind: int, payload: bytes) -> bytes:
        """Takes a message, gives what to send. Raises ServerError."""
        match chr(kind):
            case "R" if not self._authenticated and len(payload) >= 4:
                return self._authenticate(int.from_bytes(payload[:4], "big"), payload[4:])
            case "E":
                fields = errors.decode(payload)
                raise ServerError(fields.get("M", "login failed"), fields.get("C", errors.CONNECTION_FAILURE))
            case "N" | "v":
                return b""
            case "S" if self._authenticated:
                name, value = parse_parameter_status(payload)
                self.parameters[name] = value
            case "K" if self._authenticated and 8 <= len(payload) <= 4 + MAX_SECRET:
                self.pid, self.secret = int.from_bytes(payload[:4], "big"), payload[4:]
            case "Z" if self._authenticated:
                self.ready = True
            case _:
                raise ServerError("unexpected message from the server at login", PROTOCOL_VIOLATION)
        return b""

    def _authenticate(self, kind: int, body: bytes) -> bytes:
        if kind == OK:
            # A server that skips its half of SCRAM has not shown that it knows the password.
            if self._exchange is not None and not self._verified:
                raise ServerError("the server ended SCRAM before proving itself", INVALID_PASSWORD)
            self._authenticated = True
            return b""
        if kind == MD5 and len(body) == 4:
            return self._password(md5_response(self._md5_hash(), body).encode() + b"\0")
        if kind == SASL:
            offered = body.split(b"\0")
            plus = self.binding is not None and scram.MECHANISM_PLUS.encode() in offered
            if not plus and scram.MECHANISM.encode() not in offered:
                raise ServerError("the server offers no SASL mechanism that we know", FEATURE_NOT_SUPPORTED)
            self._exchange = exchange = ScramClient(self.user.password, self.user.keys, binding=self.binding, plus=plus)
            first = exchange.first()
            return self._password(exchange.mechanism.encode() + b"\0" + len(first).to_bytes(4, "big") + first)
        if kind == SASL_CONTINUE and self._exchange is not None:
            return self._password(self._exchange.final(body))
        if kind == SASL_FINAL and self._exchange is not None:
            self._exchange.verify(body)
            self._verified = True
            return b""
        if kind == CLEARTEXT and self.secure:
            if self.user.password is None:
                raise ServerError("the server asks for a password, and the users file holds none", INVALID_PASSWORD)
            return self._password(self.user.password.encode() + b"\0")
        if kind == CLEARTEXT:
            raise ServerError(
                "the server asks for the password in clear text, which is not sent over an unencrypted connection",
                FEATURE_NOT_SUPPORTED,
            )
        raise ServerError(
            f"the server asks for authentication method {kind}, which is not supported", FEATURE_NOT_SUPPORTED
        )

    def _md5_hash(self) -> str:
        stored = self.user.md5_hash()
        if stored is None:
            raise ServerError(
                "the server asks for md5, and the users file holds only a SCRAM secret for this user", INVALID_PASSWORD
            )
        return stored

    @staticmethod
    def _password(payload: bytes) -> bytes:
        return message(b"p", payload)


def cancel_request(pid: int, secret: bytes) -> bytes:
    """The whole of a connection that cancels what the server process `pid` is doing."""
    body = CANCEL_CODE.to_bytes(4, "big") + pid.to_bytes(4, "big") + secret
    return (len(body) + 4).to_bytes(4, "big") + body
