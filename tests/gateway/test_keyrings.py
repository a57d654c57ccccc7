"""Fetched key sets in a worker."""

from __future__ import annotations

import pytest

from gateway.keeper import AGAIN_SECONDS
from gateway.keymessages import Keys as KeysMessage
from gateway.keymessages import KeysWanted
from tests.gateway.conftest import NOW, Keys
from tests.gateway.house import OK, PLAIN, Build, House, answer

URL = "https://issuer.example/jwks.json"
CONFIG = (
    PLAIN.replace('pool = "web"', 'pool = "web"\nauth = "main"')
    + f"""
[gateway.auth.main]
type = "jwt"
algorithms = ["RS256", "ES256"]
jwks = "{URL}"
"""
)


class Mailbox:
    """What the worker sends."""

    def __init__(self) -> None:
        self.sent: list[object] = []

    def send(self, column: int, message: object) -> bool:
        self.sent.append(message)
        return True


@pytest.fixture
def posted(build: Build) -> tuple[House, Mailbox]:
    house = build(CONFIG)
    mailbox = Mailbox()
    house.worker.mailbox = mailbox  # type: ignore[assignment]
    keeper = house.plane.claim_column("gateway-keys", 1)
    house.plane.started(keeper, 1)
    return house, mailbox


def asked(house: House, token: bytes) -> tuple[int, str]:
    client = house.connect()
    client.get("/", f"Authorization: Bearer {token.decode()}")
    house.lane.run()
    if house.servers[8001] and house.server().take():
        house.answer(OK)
    reply = answer(client.take())
    client.end.close()
    house.lane.run()
    return reply.status, house.log.lines[-1]["reason"]


def test_until_the_keys_are_there_nobody_is_judged(posted: tuple[House, Mailbox], keys: Keys) -> None:
    house, mailbox = posted
    token = keys.token("RS256", exp=NOW + 1e9, iss=None, aud=None)
    assert asked(house, token) == (503, "keys_missing")
    house.lane.advance(2.0)
    assert mailbox.sent
    assert set(mailbox.sent) == {KeysWanted(house.column, URL)}
    house.gateway.receive(KeysMessage(URL, keys.key_set("RS256").decode()), ())
    assert asked(house, token) == (200, "")
    mailbox.sent.clear()
    house.lane.advance(5.0)
    assert mailbox.sent == []


def test_an_unknown_key_is_asked_for_once_in_a_while(posted: tuple[House, Mailbox], keys: Keys) -> None:
    house, mailbox = posted
    house.gateway.receive(KeysMessage(URL, keys.key_set("RS256").decode()), ())
    mailbox.sent.clear()
    token = keys.token("ES256", exp=NOW + 1e9, iss=None, aud=None)
    for _ in range(3):
        assert asked(house, token) == (401, "token_invalid")
    assert mailbox.sent == [KeysWanted(house.column, URL, again=True)]
    house.lane.advance(AGAIN_SECONDS)
    assert asked(house, token)[0] == 401
    assert len(mailbox.sent) == 2
    house.gateway.receive(KeysMessage(URL, keys.key_set("RS256", "ES256").decode()), ())
    assert asked(house, token) == (200, "")


def test_a_key_that_is_withdrawn_verifies_nothing_more(posted: tuple[House, Mailbox], keys: Keys) -> None:
    house, _ = posted
    house.gateway.receive(KeysMessage(URL, keys.key_set("RS256", "ES256").decode()), ())
    token = keys.token("RS256", exp=NOW + 1e9, iss=None, aud=None)
    assert asked(house, token) == (200, "")
    house.gateway.receive(KeysMessage(URL, keys.key_set("ES256").decode()), ())
    assert asked(house, token) == (401, "token_invalid")


def test_a_reload_keeps_the_keys(posted: tuple[House, Mailbox], keys: Keys) -> None:
    house, _ = posted
    house.gateway.receive(KeysMessage(URL, keys.key_set("RS256").decode()), ())
    house.reload(CONFIG + 'issuer = "https://issuer.example"\n')
    assert asked(house, keys.token("RS256", exp=NOW + 1e9, aud=None)) == (200, "")
