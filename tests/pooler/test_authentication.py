"""How clients prove themselves, by every method and every kind of stored password."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooler import scram, users
from pooler.authentication import Authentication, Channel, Method
from pooler.errors import PeerError
from pooler.scram import ScramClient
from pooler.users import Users, md5_response, md5_stored

P = ord("p")
SCRAM = scram.derive("secret", b"0123456789abcdef", 4096).secret
USERS = Users(
    {
        "plain": users.User("plain", password="secret"),
        "hashed": users.User("hashed", md5=md5_stored("hashed", "secret")),
        "scram": users.User("scram", secret=SCRAM),
    },
    b"key",
)


def kind(message: bytes) -> int:
    assert message[:1] == b"R"
    return int.from_bytes(message[5:9], "big")


def by_scram(exchange: Authentication, asked: bytes, password: str = "secret") -> None:
    assert asked[9:] == b"SCRAM-SHA-256\0\0"
    client = ScramClient(password)
    first = client.first()
    challenge = exchange.answer(P, b"SCRAM-SHA-256\0" + len(first).to_bytes(4, "big") + first)
    assert kind(challenge) == 11
    final = exchange.answer(P, client.final(challenge[9:]))
    assert kind(final) == 12
    client.verify(final[9:])


def by_md5(exchange: Authentication, asked: bytes, password: str = "secret") -> None:
    assert exchange.answer(P, md5_response(md5_stored(exchange.name, password), asked[9:]).encode() + b"\0") == b""


@pytest.mark.parametrize(
    ("user", "method", "asked"),
    [
        ("plain", Method.AUTO, 10),
        ("hashed", Method.AUTO, 5),
        ("scram", Method.AUTO, 10),
        ("plain", Method.MD5, 5),
        ("hashed", Method.MD5, 5),
        ("scram", Method.MD5, 10),
        ("plain", Method.SCRAM, 10),
        ("scram", Method.SCRAM, 10),
    ],
)
def test_what_is_asked_for_and_answered(user: str, method: Method, asked: int) -> None:
    for password in ("secret", "wrong"):
        exchange = Authentication(user, method, USERS)
        message = exchange.begin()
        assert kind(message) == asked
        answer = by_scram if asked == 10 else by_md5
        if password == "secret":
            answer(exchange, message)
            assert exchange.proved
        else:
            with pytest.raises(PeerError, match="password authentication failed"):
                answer(exchange, message, password)
            assert not exchange.proved


@pytest.mark.parametrize(
    ("user", "method"), [("nobody", Method.AUTO), ("nobody", Method.MD5), ("hashed", Method.SCRAM)]
)
def test_who_cannot_come_in_is_asked_all_the_same(user: str, method: Method) -> None:
    exchange = Authentication(user, method, USERS)
    with pytest.raises(PeerError, match="password authentication failed"):
        by_scram(exchange, exchange.begin())
    assert not exchange.proved


def test_trust_believes_the_users_of_the_file() -> None:
    exchange = Authentication("hashed", Method.TRUST, USERS)
    assert exchange.begin() == b""
    assert exchange.proved
    with pytest.raises(PeerError) as error:
        Authentication("nobody", Method.TRUST, USERS).begin()
    assert error.value.sqlstate == "28000"


def test_the_keys_of_a_proof_are_kept_where_only_a_secret_is_stored() -> None:
    user = users.User("scram", secret=SCRAM)
    exchange = Authentication("scram", Method.AUTO, Users({"scram": user}))
    by_scram(exchange, exchange.begin())
    assert user.keys is not None
    assert user.keys.secret == SCRAM


@pytest.mark.parametrize(
    ("user", "messages"),
    [
        ("plain", [(ord("Q"), b"SELECT 1\0")]),
        ("plain", [(P, b"")]),
        ("plain", [(P, b"PLAIN\0\0\0\0\0")]),
        ("plain", [(P, b"SCRAM-SHA-256\0\0\0\0\x08n,,n=,r=x")]),
        ("plain", [(P, b"SCRAM-SHA-256\0\xff\xff\xff\xff")]),
        ("plain", [(P, b"SCRAM-SHA-256\0\0\0\0\x0an,,n=,r=xx"), (P, b"nonsense")]),
        ("hashed", [(P, b"no terminator")]),
        ("hashed", [(P, b"md5\0behind")]),
        ("hashed", [(P, b"\0")]),
        ("hashed", [(P, "md5é\0".encode())]),
        ("hashed", [(P, b"\xff\0")]),
    ],
)
def test_what_is_no_answer(user: str, messages: list[tuple[int, bytes]]) -> None:
    exchange = Authentication(user, Method.AUTO, USERS)
    exchange.begin()
    for message in messages[:-1]:
        exchange.answer(*message)
    with pytest.raises(PeerError):
        exchange.answer(*messages[-1])
    assert not exchange.proved


@given(st.sampled_from(["plain", "hashed", "nobody"]), st.lists(st.binary(max_size=60), max_size=3))
def test_property_only_peer_error_escapes_and_nobody_comes_in(user: str, payloads: list[bytes]) -> None:
    exchange = Authentication(user, Method.AUTO, USERS)
    exchange.begin()
    try:
        for payload in payloads:
            exchange.answer(P, payload)
    except PeerError:
        pass
    assert not exchange.proved


def by_password(exchange: Authentication, password: str = "secret") -> None:
    assert kind(exchange.begin()) == 3
    assert exchange.answer(P, password.encode() + b"\0") == b""


@pytest.mark.parametrize("user", ["plain", "hashed", "scram"])
def test_a_password_in_clear_text_fits_whatever_is_stored(user: str) -> None:
    exchange = Authentication(user, Method.PASSWORD, USERS, Channel(secure=True))
    by_password(exchange)
    assert exchange.proved
    for name, password in ((user, "wrong"), ("nobody", "secret")):
        with pytest.raises(PeerError) as caught:
            by_password(Authentication(name, Method.PASSWORD, USERS, Channel(secure=True)), password)
        assert caught.value.sqlstate == "28P01"


def test_a_password_in_clear_text_is_not_asked_for_without_tls() -> None:
    with pytest.raises(PeerError, match="over TLS only"):
        Authentication("plain", Method.PASSWORD, USERS).begin()


@pytest.mark.parametrize(
    ("method", "channel", "fine"),
    [
        (Method.CERT, Channel(True, subject="plain"), True),
        (Method.CERT, Channel(True, subject="hashed"), False),
        (Method.CERT, Channel(True), False),
        (Method.PEER, Channel(peer="plain"), True),
        (Method.PEER, Channel(peer="root"), False),
        (Method.REJECT, Channel(), False),
    ],
)
def test_who_is_known_by_the_connection_itself(method: Method, channel: Channel, fine: bool) -> None:
    exchange = Authentication("plain", method, USERS, channel)
    if fine:
        assert exchange.begin() == b""
        assert exchange.proved
        return
    with pytest.raises(PeerError) as caught:
        exchange.begin()
    assert caught.value.sqlstate == "28000"


def test_binding_is_offered_where_there_is_something_to_bind_to() -> None:
    exchange = Authentication("plain", Method.AUTO, USERS, Channel(True, b"certificate"))
    assert exchange.begin()[9:] == b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"
    client = ScramClient("secret", binding=b"certificate", plus=True)
    first = client.first()
    challenge = exchange.answer(P, b"SCRAM-SHA-256-PLUS\0" + len(first).to_bytes(4, "big") + first)
    client.verify(exchange.answer(P, client.final(challenge[9:]))[9:])
    assert exchange.proved
    plain = Authentication("plain", Method.AUTO, USERS)
    plain.begin()
    with pytest.raises(PeerError, match="invalid SASL authentication mechanism"):
        plain.answer(P, b"SCRAM-SHA-256-PLUS\0" + len(first).to_bytes(4, "big") + first)
