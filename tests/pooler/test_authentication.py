"""How clients prove themselves, by every method and every kind of stored password."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooler import scram, users
from pooler.authentication import Authentication, Method
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
