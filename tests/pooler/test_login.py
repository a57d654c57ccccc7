"""How we log in to servers, and what we do not let them do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooler import scram
from pooler.authentication import request
from pooler.errors import PeerError, ServerError
from pooler.login import Login, cancel_request
from pooler.messages import HEAD, message, parameter_status
from pooler.scram import ScramServer
from pooler.users import User, md5_response, md5_stored

USER = User("app", password="secret")
SECRET = scram.derive("secret", b"0123456789abcdef", 4096).secret
AFTERWARDS = [
    parameter_status("server_version", "15.1"),
    parameter_status("TimeZone", "UTC"),
    message(b"N", b"hello\0"),
    message(b"K", b"\0\0\0\x07abcd"),
    message(b"Z", b"I"),
]


def feed(login: Login, *messages: bytes) -> bytes:
    """Gives it whole messages; what it answers to the last."""
    answer = b""
    for one in messages:
        kind, length = HEAD.unpack_from(one)
        assert length == len(one) - 1
        answer = login.receive(kind, one[5:])
    return answer


def check_ready(login: Login) -> None:
    feed(login, *AFTERWARDS)
    assert login.ready
    assert login.parameters == {"server_version": "15.1", "TimeZone": "UTC"}
    assert (login.pid, login.secret) == (7, b"abcd")


def test_the_startup_message() -> None:
    data = Login(USER, "db").begin()
    assert data == b"\0\0\0\x1e\0\x03\0\0user\0app\0database\0db\0\0"


def test_trust() -> None:
    login = Login(User("app"), "db")
    feed(login, request(0))
    check_ready(login)


def test_md5() -> None:
    for user in (USER, User("app", md5=md5_stored("app", "secret"))):
        login = Login(user, "db")
        answer = feed(login, request(5, b"salt"))
        assert answer == message(b"p", md5_response(md5_stored("app", "secret"), b"salt").encode() + b"\0")
        feed(login, request(0))
        check_ready(login)


def test_scram() -> None:
    login, server = Login(USER, "db"), ScramServer("app", SECRET)
    first = feed(login, request(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"))
    assert first[5:].startswith(b"SCRAM-SHA-256\0")
    final = feed(login, request(11, server.first(first[23:])))
    feed(login, request(12, server.final(final[5:])), request(0))
    check_ready(login)


REFUSED = {
    "clear text": (USER, [request(3)], "clear text"),
    "kerberos": (USER, [request(7)], "method 7"),
    "no mechanism of ours": (USER, [request(10, b"OTHER\0\0")], "no SASL mechanism"),
    "md5 without a password": (User("app", secret=SECRET), [request(5, b"salt")], "only a SCRAM secret"),
    "an error": (USER, [message(b"E", b"SFATAL\0C28P01\0Mno\0\0")], "no"),
    "parameters before authentication": (USER, [AFTERWARDS[0]], "unexpected"),
    "ready before authentication": (USER, [AFTERWARDS[-1]], "unexpected"),
    "authentication twice": (USER, [request(0), request(0)], "unexpected"),
    "scram that ends early": (USER, [request(10, b"SCRAM-SHA-256\0\0"), request(0)], "before proving itself"),
    "scram from the middle": (USER, [request(11, b"r=x,s=AAAA,i=1")], "method 11"),
    "a key that is too long": (USER, [request(0), message(b"K", bytes(4 + 257))], "unexpected"),
    "half an authentication": (USER, [message(b"R", b"\0")], "unexpected"),
}


@pytest.mark.parametrize(("user", "messages", "match"), REFUSED.values(), ids=REFUSED)
def test_refused(user: User, messages: list[bytes], match: str) -> None:
    with pytest.raises(ServerError, match=match):
        feed(Login(user, "db"), *messages)


def test_the_servers_own_code_is_kept() -> None:
    with pytest.raises(ServerError) as error:
        feed(Login(USER, "db"), message(b"E", b"SFATAL\0C53300\0Mtoo many\0\0"))
    assert error.value.sqlstate == "53300"


def test_a_cancel_request() -> None:
    assert cancel_request(7, b"abcd") == b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07abcd"


@given(st.lists(st.tuples(st.sampled_from(b"REKSZNvTx"), st.binary(max_size=40)), max_size=6))
def test_property_only_our_errors_escape(messages: list[tuple[int, bytes]]) -> None:
    login = Login(USER, "db")
    try:
        for one in messages:
            login.receive(*one)
    except (ServerError, PeerError):
        pass


def test_a_password_goes_in_clear_text_over_tls_only() -> None:
    asked = request(3)
    assert feed(Login(USER, "app", secure=True), asked) == message(b"p", b"secret\0")
    with pytest.raises(ServerError, match="clear text"):
        feed(Login(USER, "app"), asked)
    with pytest.raises(ServerError, match="holds none"):
        feed(Login(User("app"), "app", secure=True), asked)


def test_the_proof_is_bound_where_the_server_offers_it() -> None:
    for offered, chosen in ((b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0", b"-PLUS\0"), (b"SCRAM-SHA-256\0\0", b"256\0")):
        login = Login(USER, "app", secure=True, binding=b"certificate")
        said = feed(login, request(10, offered))
        assert said[5:].startswith(b"SCRAM-SHA-256" + chosen.removeprefix(b"256"))
        assert (b"p=tls-server-end-point,," in said) == (chosen == b"-PLUS\0")
