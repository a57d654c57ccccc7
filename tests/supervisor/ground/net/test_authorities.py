"""Whom the standard library's clients believe: those that were named, however bundles write them, and nobody else."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from supervisor.cli.demo.credentials import Certificate, write_certificate
from supervisor.ground.net.authorities import client_context


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return write_certificate(tmp_path_factory.mktemp("one"), ["one.example", "192.0.2.1"])


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return write_certificate(tmp_path_factory.mktemp("other"), ["one.example"])


def shake(context: ssl.SSLContext, server: Certificate, name: str) -> None:
    """A handshake in memory with a server that shows this certificate. Raises ssl.SSLError as the client sees it."""
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(server.cert, server.key)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(down, up, server_hostname=name)
    far = theirs.wrap_bio(up, down, server_side=True)
    for end in (client, far, client, far):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            pass


def bundle(*authorities: Certificate, comment: str = "") -> bytes:
    return b"".join(f"# {comment}\n".encode() + one.authority.read_bytes() for one in authorities)


@pytest.mark.parametrize("comment", ["", "Főtanúsítvány", "認証局"])
def test_a_bundle_is_believed_however_its_authorities_write_their_names(
    made: Certificate, other: Certificate, comment: str
) -> None:
    context = client_context(bundle(other, made, comment=comment))
    shake(context, made, "one.example")
    shake(context, made, "192.0.2.1")
    shake(context, other, "one.example")


def test_nobody_else_is(made: Certificate, other: Certificate) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        shake(client_context(bundle(other)), made, "one.example")
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        shake(client_context(None), made, "one.example")


def test_a_server_must_have_the_name_that_is_asked_for(made: Certificate) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake(client_context(bundle(made)), made, "two.example")


def test_a_link_of_a_chain_is_no_authority_as_on_the_data_path(made: Certificate) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get"):
        shake(client_context(made.cert.read_bytes()), made, "one.example")


@pytest.mark.parametrize("data", [b"", b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_holds_no_certificate_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        client_context(data)


def test_no_authority_is_believed_beside_those_that_were_named(made: Certificate, tmp_path: Path) -> None:
    assert len(client_context(bundle(made)).get_ca_certs()) == 1
