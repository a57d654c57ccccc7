"""SCRAM-SHA-256: both sides against each other, against RFC 7677's example and against PostgreSQL's own secret."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooler import scram
from pooler.errors import PeerError, ServerError
from pooler.scram import Keys, ScramClient, ScramServer, derive, mock_secret, parse_secret

KEY = "A" * 43 + "="
SECRET = derive("pencil", b"0123456789abcdef", 4096).secret
# RFC 7677 §3
RFC_SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
RFC_SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
RFC_CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
RFC_CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)


def talk(client: ScramClient, server: ScramServer) -> None:
    client.verify(server.final(client.final(server.first(client.first()))))


def test_the_example_of_the_rfc() -> None:
    server = ScramServer("user", derive("pencil", RFC_SALT, 4096).secret, nonce=RFC_SERVER_NONCE)
    assert server.first(RFC_CLIENT_FIRST) == (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    assert server.final(RFC_CLIENT_FINAL) == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_a_secret_as_postgres_writes_it() -> None:
    stored = (
        "SCRAM-SHA-256$4096:bpbl7NYkL0dVQkCRPXGu5A==$dzCIc1B80CZX8KVRAPFrYRldIR/P4ZBUm0bkaMsXzVc="
        ":1iAkV1BoKyRDdQ0Bsx4T8N/EPGkxkPqMEAGLgGjq1kM="
    )
    assert parse_secret(stored).salt == base64.b64decode("bpbl7NYkL0dVQkCRPXGu5A==")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SCRAM-SHA-256$4096:!$a:b",
        "SCRAM-SHA-256$4096:AAAA$AAAA:AAAA",
        "SCRAM-SHA-256$0:AAAA$" + "A" * 43 + "=:" + "A" * 43 + "=",
    ],
)
def test_what_is_no_secret(text: str) -> None:
    with pytest.raises(ValueError):
        parse_secret(text)


def test_client_and_server_agree() -> None:
    server = ScramServer("u", SECRET)
    talk(ScramClient("pencil"), server)
    assert server.keys is not None
    # The keys of a proof open a server with the same secret, and no other.
    talk(ScramClient(None, server.keys), ScramServer("u", SECRET))
    other = ScramServer("u", derive("pencil", b"another salt", 4096).secret)
    with pytest.raises(ServerError, match="differs from the one in the users file"):
        talk(ScramClient(None, server.keys), other)


def test_a_wrong_password_is_refused() -> None:
    with pytest.raises(PeerError) as error:
        talk(ScramClient("wrong"), ScramServer("u", SECRET))
    assert error.value.sqlstate == "28P01"


def test_nobody_matches_a_mock_secret_and_it_is_always_the_same() -> None:
    assert mock_secret("u", b"key") == mock_secret("u", b"key") != mock_secret("v", b"key")
    with pytest.raises(PeerError):
        talk(ScramClient("pencil"), ScramServer("u", mock_secret("u", b"key")))


def test_without_a_password_there_is_no_login() -> None:
    with pytest.raises(ServerError, match="holds none"):
        ScramClient(None, nonce="n").final(b"r=nx,s=AAAA,i=1")


CLIENT_FIRST = [b"", b"p=tls-unique,,n=,r=x", b"x,,n=,r=x", b"n,a=other,n=,r=x", b"n,,m=ext,n=,r=x", b"n,,n=",
                b"n,,r=x", b"n,,n=,r=", b"n,,n=,r=\xc3\xa9", b"\xff", b"n,,n=\0,r=x"]  # fmt: skip


@pytest.mark.parametrize("message", CLIENT_FIRST)
def test_bad_first_messages(message: bytes) -> None:
    with pytest.raises(PeerError):
        ScramServer("u", SECRET).first(message)


@pytest.mark.parametrize(
    "message",
    [b"", b"c=biws,r=NONCE", b"r=NONCE,p=AAAA", b"c=eSws,r=NONCE,p=AAAA", b"c=biws,r=other,p=AAAA",
     b"c=biws,r=NONCE,p=!", b"c=biws,r=NONCE,p=AAAA", b"c=biws,r=NONCE,p=" + base64.b64encode(bytes(32))],
)  # fmt: skip
def test_bad_final_messages(message: bytes) -> None:
    server = ScramServer("u", SECRET, nonce="def")
    server.first(b"n,,n=,r=abc")
    with pytest.raises(PeerError):
        server.final(message.replace(b"NONCE", b"abcdef"))


@pytest.mark.parametrize(
    "message",
    [b"", b"r=n", b"r=other,s=AAAA,i=1", b"r=n,s=AAAA,i=1", b"r=nx,s=,i=1", b"r=nx,s=AAAA,i=0",
     b"r=nx,s=AAAA,i=9999999", b"s=AAAA,r=nx,i=1", b"r=nx,s=!,i=1", b"r=nx,s=AAAA,i=x", b"\xff"],
)  # fmt: skip
def test_bad_servers(message: bytes) -> None:
    client = ScramClient("pencil", nonce="n")
    client.first()
    with pytest.raises(ServerError):
        client.final(message)


@pytest.mark.parametrize("message", [b"", b"e=invalid-proof", b"v=!", b"v=" + base64.b64encode(bytes(32))])
def test_a_server_that_does_not_prove_itself(message: bytes) -> None:
    client = ScramClient("pencil", nonce="n")
    client.first()
    client.final(b"r=nx,s=AAAA,i=1")
    with pytest.raises(ServerError):
        client.verify(message)
    with pytest.raises(ServerError):
        ScramClient("pencil").verify(b"v=")


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_property_only_peer_error_escapes_the_server_side(first: bytes, final: bytes) -> None:
    for opening in (first, b"n,,n=,r=x"):
        server = ScramServer("u", SECRET, nonce="n")
        try:
            server.first(opening)
            server.final(final)
        except PeerError:
            continue
        raise AssertionError("nobody can guess a proof")


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_property_only_server_error_escapes_the_client_side(first: bytes, final: bytes) -> None:
    for opening in (first, b"r=nx,s=AAAA,i=1"):
        client = ScramClient(None, Keys(SECRET, bytes(32)), nonce="n")
        client.first()
        try:
            client.final(opening)
            client.verify(final)
        except ServerError:
            pass


def test_a_password_is_prepared_before_it_is_hashed() -> None:
    assert scram.derive("a\u00a0b", b"salt", 1) == scram.derive("a b", b"salt", 1)


def bound(server_binding: bytes | None, client_binding: bytes | None, offered: bool) -> ScramServer:
    """An exchange over a channel with these two ends; raises what either side raises."""
    client = ScramClient("secret", binding=client_binding, plus=offered)
    server = ScramServer("app", derive("secret", b"salt", 4096).secret, server_binding)
    server.plus = client.mechanism == scram.MECHANISM_PLUS
    client.verify(server.final(client.final(server.first(client.first()))))
    return server


def test_a_proof_bound_to_the_channel() -> None:
    assert bound(b"certificate", b"certificate", offered=True).plus
    assert not bound(b"certificate", None, offered=True).plus
    assert not bound(None, b"certificate", offered=False).plus


def test_another_certificate_in_the_middle_is_noticed() -> None:
    with pytest.raises(PeerError, match="channel binding check failed"):
        bound(b"ours", b"another", offered=True)


def test_an_offer_that_was_taken_away_is_noticed() -> None:
    with pytest.raises(PeerError, match="negotiation error"):
        bound(b"certificate", b"certificate", offered=False)


def test_another_type_of_binding_is_refused() -> None:
    server = ScramServer("app", derive("secret", b"salt", 4096).secret, b"certificate", plus=True)
    for flag in (b"p=tls-unique", b"y", b"n"):
        with pytest.raises(PeerError, match="malformed"):
            server.first(flag + b",,n=,r=abc")
