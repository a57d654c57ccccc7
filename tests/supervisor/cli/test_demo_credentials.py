"""What is minted is what a verifier expects: keys by id, tokens with the usual claims, a chain that holds."""

import datetime
import stat
from pathlib import Path

import jwt
import pytest
from cryptography import x509

from supervisor.cli.demo.credentials import Issuer, new_key, unsigned_token, write_certificate, write_private


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    made = Issuer()
    for kid, algorithm in (("a", "ES256"), ("b", "EdDSA"), ("c", "HS256"), ("d", "RS256")):
        made.add_key(kid, algorithm)
    return made


def test_every_public_key_verifies_its_tokens(issuer: Issuer) -> None:
    for jwk in issuer.jwks()["keys"]:
        token = issuer.token("bob", kid=jwk["kid"])
        claims = jwt.decode(
            token, jwt.PyJWK(jwk).key, algorithms=[jwk["alg"]], audience="api", issuer="https://issuer.example"
        )
        assert claims["sub"] == "bob"
        assert jwt.get_unverified_header(token)["kid"] == jwk["kid"]


def test_a_shared_secret_is_not_published(issuer: Issuer) -> None:
    assert [jwk["kid"] for jwk in issuer.jwks()["keys"]] == ["a", "b", "d"]
    with pytest.raises(ValueError, match="a secret"):
        issuer.write_public_key("c", Path("unused"))


def test_claims_are_laid_over_and_taken_away(issuer: Issuer) -> None:
    claims = jwt.decode(issuer.token(scope="read", exp=None), options={"verify_signature": False})
    assert claims["scope"] == "read"
    assert "exp" not in claims


def test_unknown_algorithm_has_no_key() -> None:
    with pytest.raises(ValueError, match="XX256"):
        new_key("XX256")


def test_unsigned_token_has_no_signature() -> None:
    token = unsigned_token({"sub": "eve"})
    assert token.endswith(".")
    assert jwt.get_unverified_header(token)["alg"] == "none"


def test_certificate_names_its_hosts_and_is_signed_by_its_authority(tmp_path: Path) -> None:
    paths = write_certificate(tmp_path, ("a.example", "*.b.example", "::1"))
    leaf = x509.load_pem_x509_certificate(paths.cert.read_bytes())
    authority = x509.load_pem_x509_certificate(paths.authority.read_bytes())
    leaf.verify_directly_issued_by(authority)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.example", "*.b.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["::1"]
    assert leaf.not_valid_before_utc < datetime.datetime.now(datetime.UTC) < leaf.not_valid_after_utc


def test_secrets_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    assert stat.S_IMODE(write_private(tmp_path / "x", b"secret").stat().st_mode) == 0o600
    assert stat.S_IMODE(write_certificate(tmp_path).key.stat().st_mode) == 0o600
