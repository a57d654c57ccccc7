"""Keys are used for what they were made for."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from gateway.config import AuthTable, KeySetFile
from gateway.keys import KeyRing, load_keys
from tests.gateway.conftest import Keys

Auth = Callable[..., AuthTable]


def ring(auth: Auth, document: Any, *algorithms: str) -> KeyRing:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return load_keys(auth(*(algorithms or ("RS256",)), jwks=KeySetFile(Path("jwks.json"), data)))


def test_a_key_serves_the_algorithms_of_its_type_that_are_listed(auth: Auth) -> None:
    keys = load_keys(auth("RS256", "PS256", "ES384"))
    assert {(key.kid, key.algorithms) for key in keys.keys} == {
        ("RS256", frozenset({"RS256", "PS256"})), ("ES384", frozenset({"ES384"})),
    }  # fmt: skip


def test_alg_use_and_operations_of_a_key_are_respected(auth: Auth, keys: Keys) -> None:
    entries = [
        keys.jwk("RS256", kid="a", alg="PS256"), keys.jwk("RS256", kid="b", use="enc"),
        keys.jwk("RS256", kid="c", key_ops=["sign"]), keys.jwk("RS256", kid="d", use="sig", key_ops=["verify"]),
    ]  # fmt: skip
    assert [key.kid for key in ring(auth, {"keys": entries}).keys] == ["d"]


def test_a_kid_chooses_and_its_absence_leaves_all_that_fit(auth: Auth, keys: Keys) -> None:
    both = ring(auth, {"keys": [keys.jwk("RS256", kid="a"), keys.jwk("RS256", kid="b")]})
    assert [key.kid for key in both.for_token("RS256", "b")] == ["b"]
    assert [key.kid for key in both.for_token("RS256", None)] == ["a", "b"]
    assert both.for_token("RS256", "c") == []
    assert both.for_token("ES256", "a") == []


def test_keys_of_unknown_types_are_passed_over(auth: Auth, keys: Keys) -> None:
    document = {"keys": [{"kty": "new", "kid": "x"}, {"kty": "oct", "k": "c2VjcmV0"}, keys.jwk("RS256")]}
    assert [key.kid for key in ring(auth, document).keys] == ["RS256"]


@pytest.mark.parametrize(("document", "message"), [
    (b"not json", "not JSON"), (b"[]", 'no list "keys"'), ({"keys": {}}, 'no list "keys"'),
    ({"keys": [1]}, "not an object"),
    ({"keys": []}, "no key in it"), ({"keys": [{"kty": "RSA", "kid": "x", "n": "!", "e": "AQAB"}]}, "'x' is malformed"),
    ({"keys": [{"kty": "EC", "kid": "y", "crv": "P-256"}]}, "'y' is malformed"),
])  # fmt: skip
def test_what_is_no_key_set_says_why(auth: Auth, document: Any, message: str) -> None:
    with pytest.raises(ValueError) as problem:
        ring(auth, document)
    assert message in str(problem.value)


def test_short_rsa_keys_are_refused(auth: Auth) -> None:
    short = json.loads(RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key()))
    with pytest.raises(ValueError, match="1024 bits"):
        ring(auth, {"keys": [short]})


def test_a_private_key_in_a_set_is_reduced_to_its_public_half(auth: Auth, keys: Keys) -> None:
    entry = {**json.loads(RSAAlgorithm.to_jwk(keys.private["RS256"])), "key_ops": ["verify"]}
    assert isinstance(ring(auth, {"keys": [entry]}).keys[0].material, rsa.RSAPublicKey)


def test_a_pem_file_serves_too(auth: Auth, keys: Keys) -> None:
    assert load_keys(auth("ES256", key=keys.pem("ES256"))).for_token("ES256", "any")
    with pytest.raises(ValueError, match="can verify RS256"):
        load_keys(auth("RS256", key=keys.pem("ES256")))
    with pytest.raises(ValueError, match="not a PEM"):
        load_keys(auth("RS256", key=b"hello"))


def test_no_key_shows_its_material(auth: Auth) -> None:
    assert "ssss" not in repr(load_keys(auth("HS256")))


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"keys":' * 50_000, b"\xff", b"1e999"])
def test_what_is_no_key_set_is_a_reason_and_no_crash(auth: Auth, data: bytes) -> None:
    with pytest.raises(ValueError, match=r"not JSON|not a key set"):
        ring(auth, data)


@pytest.mark.parametrize("changed", [{"key_ops": None}, {"key_ops": 5}, {"alg": ["RS256"]}, {"n": 7}, {"e": None}])
def test_a_key_with_members_of_a_wrong_kind_is_a_reason_and_no_crash(
    auth: Auth, keys: Keys, changed: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"key_ops|no key in it|malformed"):
        ring(auth, {"keys": [{**keys.jwk("RS256"), **changed}]})


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
MEMBERS = st.sampled_from(["kty", "kid", "alg", "use", "key_ops", "n", "e", "crv", "x", "y", "d", "p"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["RS256", "ES256", "EdDSA"]), st.dictionaries(MEMBERS, ANYTHING, max_size=3))
def test_property_any_key_is_taken_passed_over_or_a_reason(
    auth: Auth, keys: Keys, name: str, changed: dict[str, Any]
) -> None:
    entry = {**keys.jwk(name), **changed}
    with suppress(ValueError):
        ring(auth, {"keys": [entry, keys.jwk("RS256")]}, "RS256", "ES256", "EdDSA")
    with suppress(ValueError):
        ring(auth, {"keys": [changed]})
