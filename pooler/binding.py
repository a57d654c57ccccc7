"""Channel binding `tls-server-end-point`: the hash of the certificate that the server has shown.

Whoever stands in the middle shows another certificate, and the proof made over one hash does not fit the other. Source:
RFC 5929 §4.1; as in PostgreSQL, a certificate whose signature names no hash (Ed25519) binds nothing.
"""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm


def end_point(certificate: bytes | None) -> bytes | None:
    """Of a certificate in DER; None where there is nothing to bind to."""
    if certificate is None:
        return None
    try:
        algorithm = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return None
    if algorithm is None:
        return None
    # §4.1: MD5 and SHA-1 are replaced by SHA-256.
    name = "sha256" if algorithm.name in ("md5", "sha1") else algorithm.name
    return hashlib.new(name, certificate).digest()


def common_name(certificate: bytes | None) -> str | None:
    """Whom a client's certificate names."""
    if certificate is None:
        return None
    names = x509.load_der_x509_certificate(certificate).subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else None
