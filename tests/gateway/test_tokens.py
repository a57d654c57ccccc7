"""Tokens good and bad, and what is remembered of them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import tokens
from gateway.config import AuthTable
from gateway.errors import PeerError
from gateway.fields import Bearer
from gateway.tokens import Verifier
from supervisor.ground.config import Secret
from tests.gateway.conftest import NOW, SECRET, Keys

Auth = Callable[..., AuthTable]
ALL = ("RS256", "PS256", "ES256", "ES384", "EdDSA")


def bearer(token: bytes) -> Bearer:
    return Bearer(b"Bearer " + token, b"")


def refusal(verifier: Verifier, token: bytes, wall: float = NOW) -> PeerError:
    with pytest.raises(PeerError) as caught:
        verifier.verify(bearer(token), wall)
    assert caught.value.status == 401
    assert not verifier.remembered
    challenge = caught.value.fields[0]
    assert challenge.startswith(b'WWW-Authenticate: Bearer realm="main"')
    assert token not in challenge
    assert token.decode("latin-1") not in caught.value.detail
    return caught.value


@pytest.mark.parametrize("algorithm", [*ALL, "HS256"])
def test_a_good_token_of_each_kind_passes(auth: Auth, keys: Keys, algorithm: str) -> None:
    verifier = Verifier("main", auth("HS256") if algorithm == "HS256" else auth(*ALL))
    verified = verifier.verify(bearer(keys.token(algorithm)), NOW)
    assert (verified.user, verified.lines, verified.expires) == (b"u1", b"X-User-Id: u1", NOW + 660)


def test_a_token_without_kid_is_tried_with_the_keys_that_fit(auth: Auth, keys: Keys) -> None:
    assert Verifier("main", auth(*ALL)).verify(bearer(keys.token("ES256", kid=None)), NOW).user == b"u1"


def test_a_token_is_verified_once_until_it_expires(auth: Auth, keys: Keys) -> None:
    verifier = Verifier("main", auth("RS256"))
    token = bearer(keys.token())
    first = verifier.verify(token, NOW)
    assert verifier.verify(token, NOW + 659) is first
    assert verifier.verified == 1
    with pytest.raises(PeerError) as caught:
        verifier.verify(token, NOW + 660)
    assert caught.value.code == "token_expired"
    assert not verifier.remembered


def test_what_is_remembered_is_bounded(auth: Auth, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_REMEMBERED", 3)
    verifier = Verifier("main", auth("HS256"))
    for number in range(6):
        verifier.verify(bearer(keys.token("HS256", sub=str(number))), NOW)
    assert [verified.user for verified in verifier.remembered.values()] == [b"3", b"4", b"5"]


def test_a_request_without_a_token_is_told_no_error_code(auth: Auth) -> None:
    verifier = Verifier("main", auth("RS256"))
    for missing in (None, Bearer(b"Basic dTpw", b"")):
        with pytest.raises(PeerError) as caught:
            verifier.verify(missing, NOW)
        assert caught.value.code == "token_missing"
        assert list(caught.value.fields) == [b'WWW-Authenticate: Bearer realm="main"']


@pytest.mark.parametrize(("claims", "detail"), [
    ({"iss": "https://other.example"}, "another issuer"), ({"iss": None}, "no iss"),
    ({"aud": "other"}, "another audience"), ({"aud": None}, "no aud"), ({"exp": None}, "no exp"),
    ({"exp": "soon"}, "must be numbers"), ({"exp": True}, "must be numbers"), ({"exp": 1e300}, "must be numbers"),
    ({"nbf": NOW + 61}, "not valid yet"), ({"nbf": "x"}, "must be numbers"), ({"sub": None}, "no sub"),
    ({"sub": ""}, "no sub"), ({"sub": 7}, "malformed"), ({"sub": "a\r\nX-Admin: 1"}, "can't be carried"),
    ({"sub": "a\x00"}, "can't be carried"), ({"sub": " a"}, "can't be carried"),
    ({"sub": "a" * 5000}, "can't be carried"), ({"sub": "\ud800"}, "not text"),
])  # fmt: skip
def test_claims_that_do_not_fit_are_refused(auth: Auth, keys: Keys, claims: dict[str, Any], detail: str) -> None:
    error = refusal(Verifier("main", auth("HS256")), keys.token("HS256", **claims))
    assert error.code == "token_invalid"
    assert detail in error.detail


@pytest.mark.parametrize(("claims", "wall"), [
    ({"exp": NOW - 59}, NOW), ({"nbf": NOW + 60}, NOW), ({"aud": ["x", "web"]}, NOW), ({"iat": NOW + 10_000}, NOW),
    ({"exp": NOW}, NOW + 59.9), ({"exp": NOW + 0.5}, NOW),
])  # fmt: skip
def test_skew_and_several_audiences_are_accepted(auth: Auth, keys: Keys, claims: dict[str, Any], wall: float) -> None:
    assert Verifier("main", auth("HS256")).verify(bearer(keys.token("HS256", **claims)), wall).user == b"u1"


def test_an_expired_token_is_called_expired(auth: Auth, keys: Keys) -> None:
    error = refusal(Verifier("main", auth("HS256")), keys.token("HS256", exp=NOW - 60))
    assert error.code == "token_expired"
    assert b'error="invalid_token", error_description="the token expired"' in error.fields[0]


def part(value: dict[str, Any]) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


def test_algorithm_none_is_never_accepted(auth: Auth) -> None:
    payload = part({"sub": "u1", "iss": "https://issuer.example", "aud": "api", "exp": NOW + 600})
    for algorithm in ("none", "None", "NONE", None, ["RS256"], ""):
        refusal(Verifier("main", auth(*ALL)), part({"alg": algorithm, "typ": "JWT"}) + b"." + payload + b".")


def test_a_public_key_is_no_shared_secret(auth: Auth, keys: Keys) -> None:
    payload = {"sub": "u1", "iss": "https://issuer.example", "aud": "api", "exp": NOW + 600}
    # PyJWT refuses to sign with a PEM as secret, an attacker does not.
    body = part({"alg": "HS256", "typ": "JWT", "kid": "RS256"}) + b"." + part(payload)
    signature = base64.urlsafe_b64encode(hmac.digest(keys.pem("RS256"), body, hashlib.sha256)).rstrip(b"=")
    refusal(Verifier("main", auth(*ALL)), body + b"." + signature)


def test_keys_and_algorithms_are_not_mixed(auth: Auth, keys: Keys) -> None:
    verifier = Verifier("main", auth("RS256", "ES256"))
    assert "unknown key" in refusal(verifier, keys.token("ES256", kid="RS256")).detail
    assert "not accepted" in refusal(verifier, keys.token("PS256", kid="RS256")).detail
    assert "unknown key" in refusal(verifier, keys.token("RS256", kid="gone")).detail


def test_a_changed_token_is_refused(auth: Auth, keys: Keys) -> None:
    verifier = Verifier("main", auth("RS256"))
    head, payload, signature = keys.token().split(b".")
    changed = part({"sub": "admin", "iss": "https://issuer.example", "aud": "api", "exp": NOW + 600})
    assert "signature" in refusal(verifier, b".".join((head, changed, signature))).detail
    refusal(verifier, b".".join((head, payload, signature[:-4] + b"AAAA")))
    refusal(verifier, b".".join((head, payload, b"")))


def test_extensions_that_must_be_understood_are_refused(auth: Auth, keys: Keys) -> None:
    payload = {"sub": "u1", "iss": "https://issuer.example", "aud": "api", "exp": NOW + 600}
    token = jwt.encode(payload, SECRET, "HS256", {"crit": ["x"], "x": 1}).encode()
    refusal(Verifier("main", auth("HS256")), token)


def test_claims_become_headers(auth: Auth, keys: Keys) -> None:
    table = auth("HS256", claims_to_headers={"uid": "X-User-Id", "roles": "X-Roles", "org": "X-Org", "none": "X-None"})
    token = keys.token("HS256", uid=7, roles=["a", "b"], org={"id": 1}, none=None)
    verified = Verifier("main", table).verify(bearer(token), NOW)
    assert verified.user == b"7"
    assert verified.lines.split(b"\r\n") == [b"X-User-Id: 7", b"X-Roles: a,b", b'X-Org: {"id":1}']


def test_without_issuer_and_audience_any_will_do(auth: Auth, keys: Keys) -> None:
    verifier = Verifier("main", auth("HS256", issuer=None, audience=()))
    assert verifier.verify(bearer(keys.token("HS256", iss="x", aud="y")), NOW).user == b"u1"


@given(st.binary(max_size=80))
def test_property_only_peer_errors_escape(keys: Keys, data: bytes) -> None:
    verifier = Verifier("main", AuthTable(type="jwt", algorithms=("HS256",), secret=Secret(SECRET)))
    good = keys.token("HS256")
    for token in (data, good[:40] + data, part({"alg": "HS256"}) + b"." + data + b"." + data, good + data):
        try:
            verifier.verify(bearer(token), NOW)
        except PeerError:
            continue


def test_a_deeply_nested_header_is_refused_like_any_other(auth: Auth) -> None:
    nested = base64.urlsafe_b64encode(b"[" * 20_000).rstrip(b"=")
    refusal(Verifier("main", auth("HS256")), nested + b"." + nested + b".")
