"""A certificate chain with its private key, and what is known of it without OpenSSL's contexts: names and kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

KINDS: dict[type[Any], str] = {
    rsa.RSAPublicKey: "RSA",
    ec.EllipticCurvePublicKey: "ECDSA",
    ed25519.Ed25519PublicKey: "Ed25519",
    ed448.Ed448PublicKey: "Ed448",
}


@attrs.frozen
class KeyPair:
    """A certificate chain and its key, as PEM bytes; with them an OCSP response (DER), b"" for none."""

    cert: bytes
    key: bytes = attrs.field(repr=False)
    ocsp: bytes = attrs.field(default=b"", repr=False)

    def names(self) -> frozenset[str]:
        """The DNS names the certificate is for, in lower case, wildcards as they stand."""
        leaf = x509.load_pem_x509_certificate(self.cert)
        try:
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return frozenset()
        return frozenset(name.lower() for name in names.get_values_for_type(x509.DNSName))

    def kind(self) -> str:
        """Of its key; a listener can show one certificate of each kind for the same name."""
        key = x509.load_pem_x509_certificate(self.cert).public_key()
        return next((kind for of, kind in KINDS.items() if isinstance(key, of)), "other")

    def load(self) -> tuple[Sequence[x509.Certificate], Any]:
        """The chain and the private key. Raises ValueError, saying what is wrong with the pair."""
        try:
            chain = x509.load_pem_x509_certificates(self.cert)
            key = load_pem_private_key(self.key, None)
        except (ValueError, TypeError) as error:
            raise ValueError(f"not a PEM certificate and unencrypted key: {error}") from None
        if key.public_key() != chain[0].public_key():
            raise ValueError("the key does not belong to the certificate")
        return chain, key
