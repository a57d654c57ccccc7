"""Mutual TLS: who may come, under what name, and that no session gets around it."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from supervisor.ground.net.keypairs import KeyPair
from supervisor.ground.net.peers import PeerPolicy, names_of
from supervisor.ground.net.tls import Acceptor, Certificates, base_context

PairFor = Callable[..., KeyPair]


class Authority:
    """Signs certificates of clients."""

    def __init__(self, name: str = "authority") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.certificate = self._signed(self.name, self.key, [x509.BasicConstraints(True, None)])
        self.pem = self.certificate.public_bytes(Encoding.PEM)

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extensions: list[Any]) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=9))
        )  # fmt: skip
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, *names: Any, common: str = "someone") -> tuple[x509.Certificate, bytes]:
        """A certificate with these alternative names, and it as PEM with its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])
        certificate = self._signed(subject, key, [x509.SubjectAlternativeName(names)] if names else [])
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return certificate, certificate.public_bytes(Encoding.PEM) + private


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def client(tmp_path: Path, pem: bytes | None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    if pem is not None:
        path = tmp_path / "client.pem"
        path.write_bytes(pem)
        context.load_cert_chain(path)
    return context


def acceptor(pair: KeyPair, policy: PeerPolicy | None) -> Acceptor:
    return Acceptor(base_context(), Certificates([pair], peers=policy))


def comes_through(served: Any, acceptor: Acceptor, context: ssl.SSLContext, session: Any = None) -> Any:
    """The client if it is echoed; None if it is turned away, in TLS 1.3 only after its own handshake."""
    try:
        found = served(acceptor, "example.com", context, session)
        found.send(b"x")
        return found if found.read() == b"x" else None
    except (ssl.SSLError, AssertionError, OSError):
        return None


def name(policy: PeerPolicy, client: Any) -> str | None:
    """What the client is called."""
    return policy.name_of(x509.load_der_x509_certificate(client.server.peer_certificate()))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_only_certificates_of_the_authority_come_through(
    served: Any, pair_for: PairFor, authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    policy = PeerPolicy(authority.pem)
    certificate, pem = authority.issue(x509.DNSName("a.example"))
    found = comes_through(served, acceptor(pair_for("example.com"), policy), client(tmp_path, pem, version))
    assert name(policy, found) == "a.example"
    assert found.server.peer_certificate() == certificate.public_bytes(Encoding.DER)
    _, strange = Authority("authority").issue(x509.DNSName("a.example"))
    for other in (strange, None):
        assert not comes_through(served, acceptor(pair_for("example.com"), policy), client(tmp_path, other, version))


def test_an_optional_certificate_may_be_missing_but_not_wrong(
    served: Any, pair_for: PairFor, authority: Authority, tmp_path: Path
) -> None:
    policy = PeerPolicy(authority.pem, required=False)
    found = comes_through(served, acceptor(pair_for("example.com"), policy), client(tmp_path, None))
    assert found.server.peer_certificate() is None
    _, strange = Authority().issue()
    assert not comes_through(served, acceptor(pair_for("example.com"), policy), client(tmp_path, strange))


def test_a_name_that_is_not_allowed_is_turned_away(
    served: Any, pair_for: PairFor, authority: Authority, tmp_path: Path
) -> None:
    policy = PeerPolicy(authority.pem, names=("b.example",))
    _, pem = authority.issue(x509.DNSName("a.example"))
    assert not comes_through(served, acceptor(pair_for("example.com"), policy), client(tmp_path, pem))
    _, pem = authority.issue(x509.DNSName("a.example"), x509.DNSName("b.example"))
    found = comes_through(served, acceptor(pair_for("example.com"), policy), client(tmp_path, pem))
    assert name(policy, found) == "b.example"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_resumes_with_its_certificate_and_only_under_the_same_policy(
    served: Any, pair_for: PairFor, authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    _, pem = authority.issue(x509.DNSName("a.example"))
    policy = PeerPolicy(authority.pem)
    listener = acceptor(pair_for("example.com"), policy)
    context = client(tmp_path, pem, version)
    first = comes_through(served, listener, context)
    again = comes_through(served, listener, context, first.tls.session)
    assert again.tls.session_reused
    assert name(policy, again) == "a.example"
    # The names change: whoever comes back is asked again, and turned away.
    listener.certificates = Certificates([pair_for("example.com")], peers=PeerPolicy(authority.pem, names=("b.x",)))
    assert not comes_through(served, listener, context, first.tls.session)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_from_before_certificates_were_asked_for_does_not_resume(
    served: Any, pair_for: PairFor, authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    listener = acceptor(pair_for("example.com"), None)
    context = client(tmp_path, None, version)
    first = comes_through(served, listener, context)
    listener.certificates = Certificates([pair_for("example.com")], peers=PeerPolicy(authority.pem))
    assert not comes_through(served, listener, context, first.tls.session)
    listener.certificates = Certificates([pair_for("example.com")])
    assert comes_through(served, listener, context, first.tls.session).tls.session_reused


def test_names_in_their_order(authority: Authority) -> None:
    certificate, _ = authority.issue(
        x509.IPAddress(ip_address("192.0.2.1")), x509.DNSName("a.example"), x509.RFC822Name("a@example"),
        x509.UniformResourceIdentifier("spiffe://site/a"), common="ignored",
    )  # fmt: skip
    assert [*names_of(certificate)] == ["spiffe://site/a", "a.example", "a@example", "192.0.2.1"]
    certificate, _ = authority.issue(common="Jörg\r\nX-User-Id: admin")
    assert [*names_of(certificate)] == ["J%C3%B6rg%0D%0AX-User-Id: admin"]


@given(st.text(max_size=40))
def test_property_a_name_can_stand_in_a_header(common: str) -> None:
    class Bare:
        """As much of a certificate as is asked."""

        class extensions:
            @staticmethod
            def get_extension_for_class(_: Any) -> Any:
                raise x509.ExtensionNotFound("none", x509.NameOID.COMMON_NAME)

        class subject:
            @staticmethod
            def get_attributes_for_oid(_: Any) -> Any:
                return [type("Attribute", (), {"value": common})]

    for name in names_of(Bare):  # type: ignore[arg-type]
        assert name.isascii()
        assert name.isprintable()
        assert name == name.strip()
