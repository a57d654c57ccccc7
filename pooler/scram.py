"""SCRAM-SHA-256 from both sides: ScramServer proves a client, ScramClient proves us to a PostgreSQL server.

Owns the three messages and their arithmetic, with and without channel binding. Messages are given as they stand inside
the SASL messages of the protocol; framing is the caller's. Nonces come from `secrets`, in tests from the caller.
Source: RFC 5802, RFC 7677, PostgreSQL 55.3 "SASL Authentication" (which says that the user name in the message is
ignored).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from functools import lru_cache

import attrs

from pooler.errors import INVALID_AUTHORIZATION, INVALID_PASSWORD, PROTOCOL_VIOLATION, PeerError, ServerError
from pooler.saslprep import saslprep

MECHANISM = "SCRAM-SHA-256"
MECHANISM_PLUS = "SCRAM-SHA-256-PLUS"  # with channel binding, RFC 5802 §6
BINDING = "tls-server-end-point"  # RFC 5929 §4; the only type that PostgreSQL knows
ITERATIONS = 4096  # RFC 7677's minimum, and PostgreSQL's default
# A server names the iterations, and we pay for them, about 0.4 µs each: a wild number must not stop a worker.
MAX_ITERATIONS = 1_000_000
SALT_SIZE = 16  # bytes; PostgreSQL's SCRAM_DEFAULT_SALT_LEN
_NONCE_SIZE = 18  # bytes before base64; PostgreSQL's SCRAM_RAW_NONCE_LEN
_SECRET = re.compile(r"SCRAM-SHA-256\$(\d{1,10}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")
# RFC 5802: printable is anything from "!" to "~" but the comma.
_NONCE = re.compile(r"[!-+\--~]+")


@attrs.frozen
class Secret:
    """What PostgreSQL keeps instead of a password (pg_authid.rolpassword): enough to check a client, not to log in."""

    iterations: int
    salt: bytes
    stored_key: bytes = attrs.field(repr=False)
    server_key: bytes = attrs.field(repr=False)


@attrs.frozen
class Keys:
    """What logs in to a server that keeps the very same Secret: learned when a client proves itself."""

    secret: Secret
    client_key: bytes = attrs.field(repr=False)


def parse_secret(text: str) -> Secret:
    """`SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`. Raises ValueError."""
    found = _SECRET.fullmatch(text)
    if found is None:
        raise ValueError("not a SCRAM-SHA-256 secret")
    try:
        salt, stored, server = (base64.b64decode(part, validate=True) for part in found.groups()[1:])
    except binascii.Error:
        raise ValueError("bad base64 in a SCRAM-SHA-256 secret") from None
    if len(stored) != 32 or len(server) != 32 or not salt or not 1 <= int(found[1]) <= MAX_ITERATIONS:
        raise ValueError("bad lengths in a SCRAM-SHA-256 secret")
    return Secret(int(found[1]), salt, stored, server)


@lru_cache(maxsize=1024)
def derive(password: str, salt: bytes, iterations: int) -> Keys:
    """All keys of a password, remembered: 4096 rounds of HMAC take about 2 ms, too much for every login."""
    salted = hashlib.pbkdf2_hmac("sha256", saslprep(password), salt, iterations)
    client_key = _hmac(salted, b"Client Key")
    return Keys(Secret(iterations, salt, hashlib.sha256(client_key).digest(), _hmac(salted, b"Server Key")), client_key)


def mock_secret(user: str, key: bytes) -> Secret:
    """The secret of a user who does not exist: the same each time, so that nobody can tell, and no password fits it."""
    salt = _hmac(key, user.encode())[:SALT_SIZE]
    return Secret(ITERATIONS, salt, _hmac(key, b"stored" + salt), _hmac(key, b"server" + salt))


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")


def _malformed(why: str) -> PeerError:
    return PeerError(PROTOCOL_VIOLATION, "malformed SCRAM message", detail=why)


def _nonce() -> str:
    return base64.b64encode(secrets.token_bytes(_NONCE_SIZE)).decode()


@attrs.define(eq=False)
class ScramServer:
    """The server's side of one exchange: `first(client-first)`, `final(client-final)`. Raises PeerError.

    `binding` is what the channel has to show, None where it has nothing; `plus` whether the client has chosen to bind.
    """

    user: str
    secret: Secret
    binding: bytes | None = None
    plus: bool = False
    nonce: str = attrs.field(factory=_nonce)
    keys: Keys | None = None  # set when the proof was right
    _header: bytes = b""
    _bare: str = ""
    _server_first: str = ""
    _full_nonce: str = ""

    def first(self, data: bytes) -> bytes:
        """Takes client-first-message, returns server-first-message."""
        message = _ascii_or_user(data)
        flag, comma, rest = message.partition(",")
        self._check_flag(flag)
        if not comma or not rest.startswith(","):
            raise PeerError("0A000", "client uses authorization identity, but it is not supported")
        self._header = f"{flag},,".encode()
        self._bare = rest[1:]
        attributes = self._bare.split(",")
        if attributes[0].startswith("m="):
            raise PeerError("0A000", "client requires an unsupported SCRAM extension")
        if len(attributes) < 2 or not attributes[0].startswith("n=") or not attributes[1].startswith("r="):
            raise _malformed("Expected attributes n and r.")
        client_nonce = attributes[1][2:]
        if not _NONCE.fullmatch(client_nonce):
            raise _malformed("Non-printable characters in SCRAM nonce.")
        self._full_nonce = client_nonce + self.nonce
        salt = base64.b64encode(self.secret.salt).decode()
        self._server_first = f"r={self._full_nonce},s={salt},i={self.secret.iterations}"
        return self._server_first.encode()

    def _check_flag(self, flag: str) -> None:
        """RFC 5802 §6: what the client thinks of channel binding must be what is so."""
        if self.plus:
            if flag != f"p={BINDING}":
                raise _malformed("The client selected SCRAM-SHA-256-PLUS, but another channel binding, or none.")
        elif flag.startswith("p="):
            raise _malformed("The client selected SCRAM-SHA-256 without channel binding, but demands it.")
        elif flag == "y" and self.binding is not None:
            # Somebody in the middle may have taken the offer away.
            raise PeerError(
                INVALID_AUTHORIZATION,
                "SCRAM channel binding negotiation error",
                detail="The client supports channel binding but thinks that the server does not, which it does.",
            )
        elif flag not in ("n", "y"):
            raise _malformed("Unexpected channel-binding flag.")

    def final(self, data: bytes) -> bytes:
        """Takes client-final-message, returns server-final-message; PeerError 28P01 if the proof is wrong."""
        message = _ascii_or_user(data)
        without_proof, mark, proof_text = message.rpartition(",p=")
        attributes = without_proof.split(",")
        if not mark or len(attributes) < 2 or not attributes[0].startswith("c=") or not attributes[1].startswith("r="):
            raise _malformed("Expected attributes c, r and p.")
        channel = self._header + ((self.binding or b"") if self.plus else b"")
        if not hmac.compare_digest(attributes[0][2:].encode(), base64.b64encode(channel)):
            if self.plus:
                raise PeerError(INVALID_AUTHORIZATION, "SCRAM channel binding check failed")
            raise PeerError(PROTOCOL_VIOLATION, "unexpected SCRAM channel-binding attribute in client-final-message")
        if not hmac.compare_digest(attributes[1][2:].encode(), self._full_nonce.encode()):
            raise PeerError(PROTOCOL_VIOLATION, "invalid SCRAM response", detail="Nonce does not match.")
        try:
            proof = base64.b64decode(proof_text, validate=True)
        except ValueError:
            raise _malformed("Malformed proof in client-final-message.") from None
        if len(proof) != 32:
            raise _malformed("Malformed proof in client-final-message.")
        signed = f"{self._bare},{self._server_first},{without_proof}".encode()
        client_key = _xor(proof, _hmac(self.secret.stored_key, signed))
        if not hmac.compare_digest(hashlib.sha256(client_key).digest(), self.secret.stored_key):
            raise PeerError(INVALID_PASSWORD, f'password authentication failed for user "{self.user}"')
        self.keys = Keys(self.secret, client_key)
        return b"v=" + base64.b64encode(_hmac(self.secret.server_key, signed))


def _ascii_or_user(data: bytes) -> str:
    try:
        message = data.decode()
    except UnicodeDecodeError:
        raise _malformed("Invalid byte sequence.") from None
    if "\0" in message:
        raise _malformed("Embedded zero byte.")
    return message


@attrs.define(eq=False)
class ScramClient:
    """Our side of a login to a server, with a password or with the keys of a secret that the server shares.
    ServerError."""

    password: str | None = attrs.field(repr=False)
    keys: Keys | None = None
    nonce: str = attrs.field(factory=_nonce)
    binding: bytes | None = None  # what the channel has to show
    plus: bool = False  # the server offers to bind
    _bare: str = ""
    _expected: bytes = b""

    @property
    def mechanism(self) -> str:
        return MECHANISM_PLUS if self.plus and self.binding is not None else MECHANISM

    def _header(self) -> bytes:
        """RFC 5802 §7: gs2-header. "y": we could bind, and the server has not offered it."""
        if self.binding is None:
            return b"n,,"
        return f"p={BINDING},,".encode() if self.plus else b"y,,"

    def first(self) -> bytes:
        """client-first-message; the user name is empty, for PostgreSQL takes that of the startup packet."""
        self._bare = f"n=,r={self.nonce}"
        return self._header() + self._bare.encode()

    def final(self, data: bytes) -> bytes:
        """Takes server-first-message, returns client-final-message."""
        nonce, salt, iterations = _server_first(data)
        if not nonce.startswith(self.nonce) or nonce == self.nonce:
            raise ServerError("the server answered SCRAM with a nonce that is not ours")
        keys = self._keys(salt, iterations)
        channel = self._header() + ((self.binding or b"") if self.plus else b"")
        without_proof = f"c={base64.b64encode(channel).decode()},r={nonce}"
        signed = f"{self._bare},{data.decode()},{without_proof}".encode()
        proof = _xor(keys.client_key, _hmac(keys.secret.stored_key, signed))
        self._expected = _hmac(keys.secret.server_key, signed)
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def _keys(self, salt: bytes, iterations: int) -> Keys:
        if self.password is not None:
            return derive(self.password, salt, iterations)
        keys = self.keys
        if keys is None:
            raise ServerError("the server wants a password, and the users file holds none", INVALID_PASSWORD)
        if (keys.secret.salt, keys.secret.iterations) != (salt, iterations):
            raise ServerError(
                "the server's SCRAM secret differs from the one in the users file: put the password there, "
                "or the very secret of pg_authid",
                INVALID_PASSWORD,
            )
        return keys

    def verify(self, data: bytes) -> None:
        """Takes server-final-message: the server must know the secret too."""
        attribute = data.split(b",")[0]
        if attribute.startswith(b"e="):
            raise ServerError(f"the server refused SCRAM: {attribute[2:].decode('utf-8', 'replace')}", INVALID_PASSWORD)
        try:
            signature = base64.b64decode(attribute.removeprefix(b"v="), validate=True)
        except ValueError:
            signature = b""
        if not self._expected or not hmac.compare_digest(signature, self._expected):
            raise ServerError("the server did not prove that it knows the password", INVALID_PASSWORD)


def _server_first(data: bytes) -> tuple[str, bytes, int]:
    try:
        attributes = data.decode("ascii").split(",")
        nonce, salt, iterations = attributes[:3]
        if not (nonce.startswith("r=") and salt.startswith("s=") and iterations.startswith("i=")):
            raise ValueError("attributes out of order")
        decoded = base64.b64decode(salt[2:], validate=True)
        count = int(iterations[2:])
    except ValueError:
        raise ServerError("malformed SCRAM message from the server") from None
    if not decoded or not 1 <= count <= MAX_ITERATIONS:
        raise ServerError(f"the server asks for {count} SCRAM iterations, at most {MAX_ITERATIONS} are done")
    return nonce[2:], decoded, count
