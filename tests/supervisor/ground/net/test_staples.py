"""OCSP responses: which are of use, which are not, and what a client is shown."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from supervisor.ground.net.keypairs import KeyPair
from supervisor.ground.net.staples import must_be_stapled, staple_of
from supervisor.ground.net.tls import certificate_context
from tests.responder import WEEK, Responder

AUTHORITY = Responder()
CERT, KEY = AUTHORITY.certificate("a.example")
LEAF = x509.load_pem_x509_certificate(CERT)
GOOD = AUTHORITY.response(CERT)
LATER = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)


def test_a_good_response_is_of_use_for_its_time() -> None:
    staple = staple_of(LEAF, GOOD)
    assert staple is not None
    assert (staple.data, staple.begins, staple.ends) == (GOOD, AUTHORITY.began, AUTHORITY.began + WEEK)
    day = timedelta(days=1)
    seen = [(staple.is_due(AUTHORITY.began + days * day), staple.is_fresh(AUTHORITY.began + days * day))
            for days in (1, 6, 7)]  # fmt: skip
    assert seen == [(False, True), (True, True), (True, False)]


def test_one_without_an_end_does_not_get_old() -> None:
    staple = staple_of(LEAF, AUTHORITY.response(CERT, lasts=None))
    assert staple is not None
    later = AUTHORITY.began + timedelta(days=1000)
    assert (staple.is_due(later), staple.is_fresh(later)) == (False, True)


@pytest.mark.parametrize("other", [
    AUTHORITY.certificate("a.example", serial=3)[0], Responder("another").certificate("a.example")[0],
], ids=["another number", "another authority"])  # fmt: skip
def test_one_of_another_certificate_is_of_no_use(other: bytes) -> None:
    assert staple_of(x509.load_pem_x509_certificate(other), GOOD) is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an OCSP response in DER"),
        (CERT, "not an OCSP response in DER"),
        (LATER.public_bytes(Encoding.DER), "not answered: try later"),
        (AUTHORITY.response(CERT, status=ocsp.OCSPCertStatus.REVOKED), "the certificate is revoked"),
        (AUTHORITY.response(CERT, status=ocsp.OCSPCertStatus.UNKNOWN), "the certificate is unknown"),
    ],
)  # fmt: skip
def test_what_has_nothing_good_to_say_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        staple_of(LEAF, data)


@given(st.binary(max_size=200), st.integers(0, len(GOOD)), st.integers(0, len(GOOD)))
def test_property_any_bytes_are_a_response_or_a_value_error(noise: bytes, start: int, end: int) -> None:
    for data in (noise, GOOD[:start] + noise + GOOD[end:]):
        try:
            staple_of(LEAF, data)
        except ValueError:
            pass


def test_certificates_that_ask_for_one_are_known() -> None:
    assert not must_be_stapled(LEAF)
    assert must_be_stapled(x509.load_pem_x509_certificate(AUTHORITY.certificate("a", stapled=True)[0]))


def shown(*pairs: KeyPair, ciphers: bytes = b"") -> bytes:
    """What a client that asks is shown."""
    got: list[bytes] = []
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_ocsp_client_callback(lambda connection, data, _: bool(got.append(data)) or True)
    if ciphers:
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(ciphers)
    server, client = SSL.Connection(certificate_context(*pairs)), SSL.Connection(context)
    client.request_ocsp()
    client.set_connect_state()
    server.set_accept_state()
    for _ in range(6):
        for near, far in ((client, server), (server, client)):
            try:
                near.do_handshake()
            except SSL.WantReadError:
                pass
            try:
                far.bio_write(near.bio_read(1 << 16))
            except SSL.WantReadError:
                pass
    return got[0]


def test_clients_that_ask_are_shown_it() -> None:
    assert shown(KeyPair(CERT, KEY, GOOD)) == GOOD
    assert shown(KeyPair(CERT, KEY, GOOD), ciphers=b"ECDHE+AESGCM") == GOOD
    assert shown(KeyPair(CERT, KEY)) == b""


def test_of_several_kinds_it_goes_with_its_own(make_pair: Callable[..., KeyPair]) -> None:
    pairs = KeyPair(CERT, KEY, GOOD), make_pair("a.example", key=rsa.generate_private_key(65537, 2048))
    assert shown(*pairs, ciphers=b"ECDHE-ECDSA-AES128-GCM-SHA256") == GOOD
    assert shown(*pairs, ciphers=b"ECDHE-RSA-AES128-GCM-SHA256") == b""


def test_one_that_is_old_or_anothers_is_not_shown() -> None:
    old = AUTHORITY.response(CERT, began=AUTHORITY.began - 2 * WEEK)
    assert shown(KeyPair(CERT, KEY, old)) == b""
    another = AUTHORITY.response(AUTHORITY.certificate("a.example", serial=3)[0])
    assert shown(KeyPair(CERT, KEY, another)) == b""
