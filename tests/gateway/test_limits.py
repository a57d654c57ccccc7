"""Which key a limit counts by, and what a client over it hears."""

from __future__ import annotations

from gateway.config import LimitTable
from gateway.limits import Key, Limit, bind, split
from supervisor.ground.config import Rate


def limit(key: str, rate: Rate = Rate(100, 1.0), burst: int | None = 200, name: str = "l") -> Limit:
    return bind(name, LimitTable(key=key, rate=rate, burst=burst), "route", 3, 40, lambda key: b"<" + key + b">")


def test_a_refusal_carries_the_fields_of_the_draft() -> None:
    refusal = limit("user", name="per_user").refusal(1_500_000_000)
    assert (refusal.status, refusal.code, refusal.close) == (429, "limited", False)
    assert list(refusal.fields) == [
        b"Retry-After: 2", b'RateLimit-Policy: "per_user";q=200;w=2', b'RateLimit: "per_user";r=0;t=2',
    ]  # fmt: skip


def test_nobody_is_told_to_come_back_at_once() -> None:
    assert limit("user").refusal(1).fields[0] == b"Retry-After: 1"


def test_the_burst_is_by_default_the_number_of_the_rate() -> None:
    assert limit("route", Rate(30, 60.0), None).burst == 30


def test_names_stay_inside_their_quotes() -> None:
    assert b'"a??\xc3' not in limit("user", name='a"\\ü').policy
    assert limit("user", name='a"\\ü').policy.startswith(b'"a???";')


def test_limits_without_identity_run_first() -> None:
    limits = [limit("user"), limit("client_ip"), limit("header:X-Key"), limit("route")]
    before, after = split(limits)
    assert [one.key for one in before] == [Key.CLIENT_IP, Key.HEADER, Key.ROUTE]
    assert [one.key for one in after] == [Key.USER]
    assert before[1].header == b"x-key"
    assert before[2].route_digest == b"<route>"
