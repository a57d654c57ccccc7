"""What a proof is bound to."""

from __future__ import annotations

import datetime
import hashlib
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from pooler.binding import common_name, end_point


def certificate(key: Any, algorithm: Any) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "app")])
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    return made.sign(key, algorithm).public_bytes(Encoding.DER)


@pytest.mark.parametrize(("algorithm", "name"), [(hashes.SHA256(), "sha256"), (hashes.SHA384(), "sha384")])
def test_the_hash_is_the_signatures(algorithm: Any, name: str) -> None:
    made = certificate(ec.generate_private_key(ec.SECP256R1()), algorithm)
    assert end_point(made) == hashlib.new(name, made).digest()
    assert common_name(made) == "app"


def test_nothing_is_bound_to_where_there_is_no_hash() -> None:
    assert end_point(certificate(ed25519.Ed25519PrivateKey.generate(), None)) is None
    assert end_point(None) is None
    assert end_point(b"nonsense") is None
    assert common_name(None) is None
