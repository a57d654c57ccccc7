"""The keys that tokens are verified with: from a key set (RFC 7517), a PEM file, or a shared secret.

Each key knows which algorithms it may be used for, by its type, its curve and its own `alg`, so that a token can't
choose one that the key was never meant for (RFC 8725 §3.1). Keys with another purpose are passed over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs
import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

if TYPE_CHECKING:
    from gateway.config import AuthTable

MIN_RSA_BITS: Final = 2048  # RFC 7518 §3.3
MAX_KEYS: Final = 1000  # of a set; a token without `kid` is tried with each that fits
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_SHARED: Final = frozenset({"HS256", "HS384", "HS512"})


@attrs.frozen
class VerificationKey:
    """One key; `material` is what PyJWT takes."""

    material: Any = attrs.field(repr=False)
    algorithms: frozenset[str]
    kid: str | None = None


@attrs.frozen
class KeyRing:
    """All keys of one auth."""

    keys: tuple[VerificationKey, ...]

    def for_token(self, algorithm: str, kid: str | None) -> list[VerificationKey]:
        """The keys that may have signed it. With a `kid`, only a key of that name, or one that has none."""
        return [
            key
            for key in self.keys
            if algorithm in key.algorithms and (kid is None or key.kid is None or key.kid == kid)
        ]


def load_keys(table: AuthTable, fetched: bytes | None = None) -> KeyRing:
    """The keys that the table names, as far as its algorithms can use them; `fetched` is what was at its URL. Raises
    ValueError with the reason."""
    listed = frozenset(table.algorithms)
    if table.secret is not None:
        return KeyRing((VerificationKey(table.secret.value.encode(), listed & _SHARED),))
    if table.key is not None:
        keys = [_from_pem(table.key.data)]
    else:
        assert table.jwks is not None
        keys = _from_set(table.jwks.data if fetched is None else fetched)
    usable = tuple(attrs.evolve(key, algorithms=key.algorithms & listed) for key in keys if key.algorithms & listed)
    if not usable:
        raise ValueError(f"no key in it can verify {', '.join(sorted(listed))}")
    return KeyRing(usable)


def _from_pem(data: bytes) -> VerificationKey:
    try:
        if b"-----BEGIN CERTIFICATE-----" in data:
            material: Any = x509.load_pem_x509_certificate(data).public_key()
        else:
            material = load_pem_public_key(data)
    except ValueError:
        raise ValueError("not a PEM public key or certificate") from None
    return VerificationKey(material, _algorithms_of(material))


def _from_set(data: bytes) -> list[VerificationKey]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError('not a key set: there is no list "keys"')
    if len(entries) > MAX_KEYS:
        raise ValueError(f"more than {MAX_KEYS} keys")
    return [key for key in map(_from_jwk, entries) if key is not None]


def _from_jwk(entry: Any) -> VerificationKey | None:
    """None for a key of another purpose or type (RFC 7517 §5: those are to be ignored)."""
    if not isinstance(entry, Mapping):
        raise ValueError("a key of the set is not an object")
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list):
        raise ValueError("a key's key_ops are not a list")
    if entry.get("use", "sig") != "sig" or "verify" not in operations:
        return None
    readers: dict[str, Any] = {
        "RSA": RSAAlgorithm.from_jwk, "EC": ECAlgorithm.from_jwk, "OKP": OKPAlgorithm.from_jwk,
    }  # fmt: skip
    reader = readers.get(str(entry.get("kty")))
    if reader is None:
        return None
    kid = entry.get("kid")
    try:
        material = reader(dict(entry))
    except (jwt.InvalidKeyError, ValueError, TypeError, KeyError):
        raise ValueError(f"the key with kid {kid!r} is malformed") from None
    if hasattr(material, "public_key"):
        material = material.public_key()  # a private key does not belong here, but only its public half is kept
    algorithms = _algorithms_of(material)
    if "alg" in entry:
        algorithms &= {str(entry["alg"])}
    return VerificationKey(material, algorithms, None if kid is None else str(kid))


def _algorithms_of(material: Any) -> frozenset[str]:
    if isinstance(material, rsa.RSAPublicKey):
        if material.key_size < MIN_RSA_BITS:
            raise ValueError(f"an RSA key of {material.key_size} bits; {MIN_RSA_BITS} are the least")
        return _RSA
    if isinstance(material, ec.EllipticCurvePublicKey):
        return frozenset(filter(None, [_CURVES.get(material.curve.name)]))
    if isinstance(material, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return frozenset({"EdDSA"})
    return frozenset()
