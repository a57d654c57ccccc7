"""Keys, and tables as the configuration would hold them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.config import AuthTable, KeySetFile
from supervisor.ground.config import File, Secret
from tests.gateway.house import Build, House, houses

SECRET = "s" * 64
NOW = 1_700_000_000.0


class Keys:
    """One private key of each kind; kid is the algorithm that it is for."""

    def __init__(self) -> None:
        self.private: dict[str, Any] = {
            "RS256": rsa.generate_private_key(65537, 2048),
            "ES256": ec.generate_private_key(ec.SECP256R1()),
            "ES384": ec.generate_private_key(ec.SECP384R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate(),
            "HS256": SECRET,
        }
        self.private["PS256"] = self.private["RS256"]

    def jwk(self, name: str, **extra: Any) -> dict[str, Any]:
        algorithm: Any = {"RS": RSAAlgorithm, "ES": ECAlgorithm, "Ed": OKPAlgorithm}[name[:2]]
        return {**json.loads(algorithm.to_jwk(self.private[name].public_key())), "kid": name, **extra}

    def key_set(self, *names: str) -> bytes:
        return json.dumps({"keys": [self.jwk(name) for name in names]}).encode()

    def pem(self, name: str) -> bytes:
        data: bytes = self.private[name].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return data

    def token(self, algorithm: str = "RS256", kid: str | None = "", key: Any = None, **claims: Any) -> bytes:
        """A good token but for what `claims` changes; None leaves a claim out, and kid=None the kid."""
        payload = {"sub": "u1", "iss": "https://issuer.example", "aud": "api", "exp": NOW + 600, **claims}
        headers = {} if kid is None else {"kid": kid or algorithm.replace("PS", "RS")}
        payload = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode(payload, key or self.private[algorithm], algorithm, headers).encode()


@pytest.fixture(scope="session")
def keys() -> Keys:
    return Keys()


@pytest.fixture
def auth(keys: Keys) -> Callable[..., AuthTable]:
    """`auth("RS256", ...)`: a table with these algorithms, keyed by a key set of all public keys or the secret."""

    def make(*algorithms: Any, **changed: Any) -> AuthTable:
        public = keys.key_set("RS256", "ES256", "ES384", "EdDSA")
        source: dict[str, Any] = {"jwks": KeySetFile(Path("jwks.json"), public)}
        if algorithms[0].startswith("HS"):
            source = {"secret": Secret(SECRET)}
        if "key" in changed:
            source = {"key": File(Path("key.pem"), changed.pop("key"))}
        values = {"issuer": "https://issuer.example", "audience": ("api", "web"), **source, **changed}
        return AuthTable(type="jwt", algorithms=algorithms, **values)

    return make


@pytest.fixture
def build() -> Iterator[Build]:
    """See `houses`."""
    with houses() as build:
        yield build


@pytest.fixture
def house(build: Build) -> House:
    return build()
