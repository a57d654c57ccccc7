"""What is known of a certificate and its key without any connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from supervisor.ground.net.keypairs import KeyPair


@pytest.mark.parametrize(("key", "kind"), [
    (rsa.generate_private_key(65537, 2048), "RSA"), (ec.generate_private_key(ec.SECP256R1()), "ECDSA"),
    (ed25519.Ed25519PrivateKey.generate(), "Ed25519"),
])  # fmt: skip
def test_kinds_are_told_by_their_keys(make_pair: Callable[..., KeyPair], key: Any, kind: str) -> None:
    pair = make_pair("example.com", key=key)
    assert pair.kind() == kind
    chain, private = pair.load()
    assert chain[0].public_key() == private.public_key()


def test_a_key_stays_out_of_what_is_shown(make_pair: Callable[..., KeyPair]) -> None:
    assert "PRIVATE" not in repr(make_pair("example.com"))
