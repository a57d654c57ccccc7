"""Scopes and claims that routes require, and limits by claims."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import PeerError
from gateway.permissions import Permissions, claims_of_interest
from tests.gateway.conftest import NOW, SECRET, Keys
from tests.gateway.house import OK, PLAIN, Build, answer


@pytest.mark.parametrize(("said", "fine"), [
    ({"scope": "read write"}, True), ({"scp": ["write", "read", 7]}, True), ({"scope": "read", "scp": ["write"]}, True),
    ({"scope": "read"}, False), ({"scope": "readwrite"}, False), ({}, False), ({"scope": 7}, False),
])  # fmt: skip
def test_all_scopes_are_needed(said: dict[str, Any], fine: bool) -> None:
    permissions = Permissions("main", frozenset({"read", "write"}), ())
    if fine:
        permissions.check(said)
        return
    with pytest.raises(PeerError) as refusal:
        permissions.check(said)
    assert refusal.value.code == "forbidden"
    assert refusal.value.fields == (
        b'WWW-Authenticate: Bearer realm="main", error="insufficient_scope", scope="read write"',
    )


@pytest.mark.parametrize(("value", "fine"), [
    ("admin", True), (["user", "admin"], True), ("Admin", False), (["x"], False), (None, False), ({"admin": 1}, False),
    ([["admin"]], False),
])  # fmt: skip
def test_a_claim_has_its_value(value: Any, fine: bool) -> None:
    permissions = Permissions("main", frozenset(), (("role", "admin"),))
    if fine:
        permissions.check({"role": value})
    else:
        with pytest.raises(PeerError, match="forbidden"):
            permissions.check({"role": value})


def test_claims_that_are_no_text() -> None:
    permissions = Permissions("main", frozenset(), (("level", "3"), ("staff", "true")))
    permissions.check({"level": 3, "staff": True})
    for said in ({"level": 3, "staff": 1}, {"level": 3.0, "staff": True}):
        with pytest.raises(PeerError):
            permissions.check(said)


def test_only_what_somebody_looks_at_is_kept() -> None:
    assert claims_of_interest({"a": 1, "b": "x" * 9999}, ["a", "c"]) == {"a": 1}


LIMITED = (
    PLAIN.replace('pool = "web"', 'pool = "web"\nauth = "main"\nlimits = ["tenant"]\nscopes = ["read"]')
    + f"""
[gateway.auth.main]
type = "jwt"
algorithms = ["HS256"]
secret = "{SECRET}"
[gateway.limits.tenant]
key = "claim:tenant"
rate = "1/h"
"""
)


def test_a_limit_by_claim_counts_all_users_of_a_tenant(build: Build, keys: Keys) -> None:
    house = build(LIMITED)
    house.lane._set_clock(0)

    def asked(**claims: Any) -> int:
        token = keys.token("HS256", exp=NOW + 1e9, iss=None, aud=None, **claims).decode()
        client = house.connect()
        client.get("/", f"Authorization: Bearer {token}")
        house.lane.run()
        if house.servers[8001] and house.server().take():
            house.answer(OK)
        status = answer(client.take()).status
        client.end.close()
        return status

    assert asked(sub="a", tenant="one", scope="read") == 200
    assert asked(sub="b", tenant="one", scope="read") == 429
    assert asked(sub="b", tenant="two", scope="read") == 200
    assert asked(sub="c", tenant="three", scope="write") == 403
    assert asked(sub="d", scope="read") == 200
    assert asked(sub="e", scope="read") == 429
    assert [line["reason"] for line in house.log.lines] == ["", "limited", "", "forbidden", "", "limited"]
    assert house.log.lines[3]["user"] == "c"
