"""What a gateway checks and shows, minted on the spot: signing keys with their JWKS, tokens, certificates.

For the demo, the tests and the benchmark; nothing in here is fit for keeping.
"""

import base64
import datetime
import ipaddress
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

RSA_BITS = 2048  # what issuers use; 3072 would make the demo start later for nothing
CURVES: dict[str, Callable[[], ec.EllipticCurve]] = {
    "ES256": ec.SECP256R1,
    "ES384": ec.SECP384R1,
    "ES512": ec.SECP521R1,
}
LIFETIME = 24 * 3600  # s: longer than anybody leaves a demo running

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | bytes


def new_key(algorithm: str) -> PrivateKey:
    """A signing key for a JWT algorithm; bytes for the HMAC ones."""
    if algorithm.startswith(("RS", "PS")):
        return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    if algorithm in CURVES:
        return ec.generate_private_key(CURVES[algorithm]())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm.startswith("HS"):
        return os.urandom(64)
    raise ValueError(f"no key for algorithm {algorithm!r}")


def write_private(path: Path, data: bytes) -> Path:
    """Write a file that only its owner can read, from its first byte on."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    return path


@attrs.define(eq=False)
class Issuer:
    """Who signs tokens: a name, an audience and one key per key id."""

    name: str = "https://issuer.example"
    audience: str = "api"
    keys: dict[str, tuple[str, PrivateKey]] = attrs.Factory(dict)  # kid -> algorithm, key

    def add_key(self, kid: str, algorithm: str = "RS256") -> PrivateKey:
        """Make a key, known from now on under `kid`."""
        key = new_key(algorithm)
        self.keys[kid] = (algorithm, key)
        return key

    def jwks(self) -> dict[str, Any]:
        """The public keys as RFC 7517 has them, the HMAC ones left out."""
        found = []
        for kid, (algorithm, key) in self.keys.items():
            if isinstance(key, bytes):
                continue
            jwk = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
            found.append({**jwk, "kid": kid, "alg": algorithm, "use": "sig"})
        return {"keys": found}

    def write_jwks(self, path: Path) -> Path:
        """Write the JWKS into a file."""
        path.write_text(json.dumps(self.jwks(), indent=1))
        return path

    def write_public_key(self, kid: str, path: Path) -> Path:
        """Write one public key as PEM."""
        key = self.keys[kid][1]
        if isinstance(key, bytes):
            raise ValueError(f"{kid} is a secret, not a key pair")
        pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        path.write_bytes(pem)
        return path

    def token(
        self, subject: str = "alice", *, kid: str | None = None, lifetime: float = LIFETIME, **claims: Any
    ) -> str:
        """A signed token for `subject`; `claims` are laid over the usual ones, and a None takes a claim away."""
        kid = next(iter(self.keys)) if kid is None else kid
        algorithm, key = self.keys[kid]
        now = int(time.time())
        payload: dict[str, Any] = {"iss": self.name, "aud": self.audience, "sub": subject, "iat": now}
        payload["exp"] = int(now + lifetime)
        payload = {name: value for name, value in {**payload, **claims}.items() if value is not None}
        return jwt.encode(payload, key, algorithm=algorithm, headers={"kid": kid})


def unsigned_token(payload: dict[str, Any]) -> str:
    """A token with algorithm `none`, which nobody may believe."""
    parts = ({"alg": "none", "typ": "JWT"}, payload)
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts) + "."


@attrs.frozen
class Certificate:
    """Paths of a certificate chain, its private key and the authority that a client should trust."""

    cert: Path
    key: Path
    authority: Path


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=90))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def write_certificate(
    directory: Path, names: Sequence[str] = ("localhost", "127.0.0.1"), stem: str = "cert"
) -> Certificate:
    """Make an authority and a certificate for `names` (host names, wildcards, addresses) as PEM files."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = _name("Portway demo authority")
    authority = (
        _builder(authority_name, authority_name, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(False, False, False, False, False, key_cert_sign=True, crl_sign=True, encipher_only=False,
                          decipher_only=False),
            critical=True,
        )
        .sign(authority_key, hashes.SHA256())
    )  # fmt: skip
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives: list[x509.GeneralName] = []
    for name in names:
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            alternatives.append(x509.DNSName(name))
    leaf = (
        _builder(_name(names[0]), authority_name, key.public_key())
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    paths = Certificate(directory / f"{stem}.pem", directory / f"{stem}-key.pem", directory / f"{stem}-authority.pem")
    paths.cert.write_bytes(leaf.public_bytes(pem))
    paths.authority.write_bytes(authority.public_bytes(pem))
    write_private(
        paths.key,
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    return paths
