"""Who makes this request: verifies JSON Web Tokens and remembers those that were good.

Rules of RFC 7519 and 8725: algorithms as listed and never `none`, keys for what they were made for, issuer, any of the
audiences, exp required, nbf, 60 s of skew. PyJWT does the verification; a token seen before costs one dict lookup by
its digest, until it expires or the keys change (a reload makes a new Verifier).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import jwt

from gateway.config import AuthTable
from gateway.errors import PeerError
from gateway.fields import Bearer
from gateway.keys import KeyRing, load_keys
from gateway.permissions import claims_of_interest, quotable

if TYPE_CHECKING:
    from gateway.limits import Limit

SKEW: Final = 60  # seconds that clocks may differ
MAX_REMEMBERED: Final = 16384  # tokens per auth and worker; about 600 bytes each
MAX_CLAIM: Final = 4096  # bytes of a claim in a header; servers take 8 KiB a line
IDENTITY_HEADER: Final = "x-user-id"

_VALUE_BYTES: Final = bytes([*range(0x20, 0x7F), *range(0x80, 0x100)])


_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Verified:
    """What a good token says: the user for limits and logs, the lines for the server, until when, and the claims that
    somebody asks for."""

    __slots__ = ("claims", "digests", "expires", "lines", "user", "user_json")

    def __init__(self, user: str, lines: bytes, expires: float, claims: Mapping[str, Any] = _NOTHING) -> None:
        self.user = user.encode()
        self.user_json = json.dumps(user, ensure_ascii=False)
        self.lines = lines  # whole header lines, joined by CRLF; b"" for none
        self.expires = expires  # seconds since the epoch, skew included
        self.claims = claims
        self.digests: dict[int, bytes] = {}  # of this user, by row of the limit

    def digest(self, limit: Limit) -> bytes:
        """What a limit counts this token by; those without its claim share one key."""
        key = self.user if not limit.claim else _text(self.claims.get(limit.claim, "")).encode("utf-8", "replace")
        return limit.digest(key)


class Verifier:
    """One auth of the configuration. `remembered` is read by the hot path directly: digest to Verified."""

    __slots__ = (
        "_audience", "_claims", "_keys", "_listed", "_table", "_user_claim", "_wanted", "name", "remembered", "unknown",
        "url", "verified",
    )  # fmt: skip

    def __init__(self, name: str, table: AuthTable, wanted: Iterable[str] = ()) -> None:
        """`wanted` are claims that routes and limits look at."""
        self.name = name
        self._wanted = frozenset(wanted)
        self.remembered: dict[bytes, Verified] = {}
        self.verified = 0  # signatures checked
        self._table = table
        self.url = None if table.jwks is None else table.jwks.url  # where the keys are fetched; None: they are here
        self.unknown: Callable[[str], None] | None = None  # is told of the URL when a token names an unknown key
        self._keys: KeyRing = load_keys(table) if self.url is None else KeyRing(())
        self._listed = frozenset(table.algorithms)
        self._audience = list(table.audience) or None
        self._claims = list(table.claims_to_headers.items())
        self._user_claim = next(
            (claim for claim, header in self._claims if header.lower().replace("_", "-") == IDENTITY_HEADER), "sub"
        )

    @property
    def keyed(self) -> bool:
        """Whether there are keys to verify with."""
        return bool(self._keys.keys)

    def renew(self, data: bytes) -> None:
        """Take a fetched key set; tokens that were verified by another are looked at again. Raises ValueError."""
        keys = load_keys(self._table, data)
        if keys != self._keys:
            self._keys = keys
            self.remembered.clear()

    def verify(self, bearer: Bearer | None, wall: float) -> Verified:
        """The token's holder; PeerError 401 if there is none. `wall` is the time in seconds since the epoch."""
        if bearer is None or bearer.token is None:
            # RFC 6750 §3.1: a request without credentials is told no error code.
            raise PeerError("token_missing", close=False, fields=(self._challenge(),))
        known = self.remembered.get(bearer.digest)
        if known is not None:
            if known.expires > wall:
                return known
            del self.remembered[bearer.digest]
            raise self._refusal("token_expired", "the token expired")
        verified = self._holder(self._claims_of(bearer.token, wall))
        if verified.expires <= wall:
            raise self._refusal("token_expired", "the token expired")
        if len(self.remembered) >= MAX_REMEMBERED:
            del self.remembered[next(iter(self.remembered))]
        self.remembered[bearer.digest] = verified
        return verified

    def _claims_of(self, token: bytes, wall: float) -> dict[str, Any]:
        try:
            text = token.decode("ascii")
            header = jwt.get_unverified_header(text)
        except (UnicodeDecodeError, jwt.PyJWTError, RecursionError):
            raise self._refusal("token_invalid", "not a JSON Web Token") from None
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._listed:
            raise self._refusal("token_invalid", "signed with an algorithm that is not accepted")
        if "crit" in header:
            # RFC 7515 §4.1.11: extensions that must be understood; none is.
            raise self._refusal("token_invalid", "the token asks for an extension that is not supported")
        keys = self._keys.for_token(algorithm, kid if isinstance(kid, str) else None)
        if not self._keys.keys:
            raise PeerError("keys_missing", "the keys that tokens are verified with are not there yet")
        if not keys:
            if self.unknown is not None and self.url is not None:
                self.unknown(self.url)
            raise self._refusal("token_invalid", "signed with an unknown key")
        for key in keys:
            self.verified += 1
            try:
                claims = jwt.decode(
                    text,
                    key.material,
                    algorithms=[algorithm],
                    audience=self._audience,
                    issuer=self._table.issuer,
                    # Times are compared below, with the clock that is given.
                    options={
                        "require": ["exp"], "verify_exp": False, "verify_nbf": False, "verify_iat": False,
                        "verify_aud": self._audience is not None,
                    },
                )  # fmt: skip
            except jwt.InvalidSignatureError:
                continue
            except jwt.MissingRequiredClaimError as error:
                raise self._refusal("token_invalid", f"the token has no {error.claim}") from None
            except jwt.InvalidAudienceError:
                raise self._refusal("token_invalid", "the token is meant for another audience") from None
            except jwt.InvalidIssuerError:
                raise self._refusal("token_invalid", "the token comes from another issuer") from None
            except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
                raise self._refusal("token_invalid", "the token is malformed") from None
            self._check_times(claims, wall)
            return claims
        raise self._refusal("token_invalid", "the signature is not valid")

    def _check_times(self, claims: dict[str, Any], wall: float) -> None:
        expires, begins = claims["exp"], claims.get("nbf", 0)
        if not _is_number(expires) or not _is_number(begins):
            raise self._refusal("token_invalid", "exp and nbf must be numbers")
        if expires + SKEW <= wall:
            raise self._refusal("token_expired", "the token expired")
        if begins - SKEW > wall:
            raise self._refusal("token_invalid", "the token is not valid yet")

    def _holder(self, claims: dict[str, Any]) -> Verified:
        lines = []
        for claim, header in self._claims:
            if claims.get(claim) is None:
                continue
            value = _text(claims[claim]).encode("utf-8", "surrogatepass")
            if value != value.strip() or len(value) > MAX_CLAIM or value.translate(None, _VALUE_BYTES):
                raise self._refusal("token_invalid", f"the claim {claim} can't be carried in a header")
            lines.append(header.encode() + b": " + value)
        user = claims.get(self._user_claim)
        if user is None or _text(user) == "":
            # A server that finds no X-User-Id takes the caller for nobody, and a limit by user has no key.
            raise self._refusal("token_invalid", f"the token has no {self._user_claim}")
        try:
            kept = claims_of_interest(claims, self._wanted)
            return Verified(_text(user), b"\r\n".join(lines), float(claims["exp"]) + SKEW, kept)
        except UnicodeEncodeError:
            raise self._refusal("token_invalid", f"the claim {self._user_claim} is not text") from None

    def _refusal(self, code: str, detail: str) -> PeerError:
        return PeerError(code, detail, close=False, fields=(self._challenge(detail),))

    def _challenge(self, detail: str = "") -> bytes:
        """RFC 6750 §3."""
        error = f', error="invalid_token", error_description="{quotable(detail)}"' if detail else ""
        return f'WWW-Authenticate: Bearer realm="{quotable(self.name)}"{error}'.encode("ascii")


def _is_number(value: Any) -> bool:
    """A NumericDate (RFC 7519 §2) that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    return json.dumps(value, separators=(",", ":"))
