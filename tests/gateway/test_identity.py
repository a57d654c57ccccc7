"""Tokens through the whole gateway: who passes, what servers learn of it, and what they never see."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from supervisor.plane.layout import Kind, Tier
from tests.gateway.conftest import SECRET, Keys
from tests.gateway.house import PLAIN, House, answer, request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GUARDED = 'pool = "web"\nauth = "main"\nlimits = ["everybody", "per_user"]\npath = "/api/*"'
TEXT = (
    PLAIN.replace('pool = "web"', GUARDED)
    + f"""
[gateway.auth.main]
type = "jwt"
issuer = "https://issuer.example"
audience = ["api"]
algorithms = ["HS256"]
secret = "{SECRET}"
claims_to_headers = {{ sub = "X-User-Id", email = "X-Email" }}
[gateway.limits.everybody]
key = "client_ip"
rate = "1/m"
burst = 8
[gateway.limits.per_user]
key = "user"
rate = "1/m"
burst = 2
[gateway.routes.open]
pool = "web"
path = "/open"
"""
)


@pytest.fixture
def house() -> Iterator[House]:
    house = House(TEXT)
    house.listen()
    yield house
    house.gateway.close()
    house.lane.finish()
    house.plane.close()


def bearer(keys: Keys, **claims: object) -> str:
    return "Authorization: Bearer " + keys.token("HS256", **claims).decode()


def test_a_good_token_becomes_headers_and_goes_no_further(house: House, keys: Keys) -> None:
    client = house.connect()
    client.get("/api/x", bearer(keys, email="a@b.example"), "X-User-Id: admin", "X-Email: admin", "x.email: admin")
    data = house.received()
    got = request(data)
    assert (got.all("x-user-id"), got.all("x-email"), got.all("authorization")) == (["u1"], ["a@b.example"], [])
    assert b"admin" not in data
    house.answer(OK)
    assert answer(client.take()).status == 200
    assert house.log.lines[0]["user"] == "u1"


def test_identity_headers_are_stripped_on_routes_without_auth_too(house: House) -> None:
    client = house.connect()
    client.get("/open", "X-User-Id: admin", "X-Email: admin")
    assert b"admin" not in house.received()


def test_connection_cannot_name_a_verified_header_away(house: House, keys: Keys) -> None:
    client = house.connect()
    client.get("/api/x", bearer(keys), "Connection: X-User-Id, close")
    assert request(house.received()).field("x-user-id") == "u1"


@pytest.mark.parametrize(("fields", "code"), [
    ((), "token_missing"), (("Authorization: Basic dTpw",), "token_missing"),
    (("Authorization: Bearer a.b.c",), "token_invalid"), (("Authorization: Bearer",), "token_invalid"),
])  # fmt: skip
def test_others_hear_401_and_how_to_come_back(house: House, fields: tuple[str, ...], code: str) -> None:
    client = house.connect()
    client.get("/api/x", *fields)
    reply = answer(client.take())
    assert (reply.status, reply.code) == (401, code)
    assert str(reply.field("www-authenticate")).startswith('Bearer realm="main"')
    assert house.servers[8001] == []
    assert not client.closed
    assert house.log.lines[0]["reason"] == code


def test_a_refused_body_is_not_taken_for_a_request(house: House) -> None:
    client = house.connect()
    body = b"GET /open HTTP/1.1\r\nHost: a\r\n\r\n"
    client.send(b"POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (len(body) + 1) + body)
    assert answer(client.take()).status == 401
    assert client.closed
    assert house.servers[8001] == []


def test_an_expired_token_is_refused_even_when_it_is_remembered(house: House, keys: Keys) -> None:
    client = house.connect()
    token = bearer(keys, exp=house.lane.wall + 5)
    client.get("/api/x", token)
    house.received()
    house.answer(OK)
    assert answer(client.take()).status == 200
    house.lane.advance(50)
    house.connect()  # keeps the rehearsal's clock honest: the first connection is idle for less than a minute
    house.lane.advance(9)
    house.lane.wall += 10
    client.get("/api/x", token)
    assert answer(client.take()).code == "token_expired"


def test_a_token_is_verified_once(house: House, keys: Keys) -> None:
    client = house.connect()
    for _ in range(2):
        client.get("/api/x", bearer(keys))
        house.received()
        house.answer(OK)
        client.take()
    assert house.rows(Kind.TIER, "gateway", Tier.TOKENS_VERIFIED) == 1
    assert house.rows(Kind.TIER, "gateway", Tier.TOKENS_CACHED) == 1


def test_a_limit_by_user_counts_users_and_not_addresses(house: House, keys: Keys) -> None:
    found = []
    for user, ip in (("u1", 1), ("u1", 2), ("u2", 1), ("u1", 3), ("u2", 4)):
        client = house.connect(f"192.0.2.{ip}")
        client.get("/api/x", bearer(keys, sub=user))
        before = len(house.log.lines)
        house.lane.run()
        if len(house.log.lines) == before and not client.end._inbox:
            house.answer(OK)
        found.append(answer(client.take()).status)
    assert found == [200, 200, 200, 429, 200]


def test_limits_without_identity_run_before_tokens_are_looked_at(house: House) -> None:
    client = house.connect()
    found = []
    for _ in range(10):
        client.get("/api/x", "Authorization: Bearer a.b.c")
        found.append(answer(client.take()).status)
    assert found == [401] * 8 + [429] * 2


def test_the_token_may_be_kept(keys: Keys) -> None:
    house = House(TEXT.replace('path = "/api/*"', 'path = "/api/*"\nforward_token = true'))
    house.listen()
    client = house.connect()
    line = bearer(keys)
    client.get("/api/x", line)
    assert request(house.received()).field("authorization") == line.partition(": ")[2]
    house.lane.finish()


def test_a_reload_with_another_secret_forgets_verified_tokens(house: House, keys: Keys) -> None:
    client = house.connect()
    client.get("/api/x", bearer(keys))
    house.received()
    house.answer(OK)
    assert answer(client.take()).status == 200
    house.reload(TEXT.replace(SECRET, "t" * 64))
    client.get("/api/x", bearer(keys))
    assert answer(client.take()).code == "token_invalid"
