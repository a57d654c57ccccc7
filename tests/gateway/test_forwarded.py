"""What servers are told about the client, and whose word counts."""

from __future__ import annotations

import random
from contextlib import suppress
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import PeerError
from gateway.fields import Field, FieldParser
from gateway.forwarded import ID_BLOCK, ID_LINES, Client, Identities, from_proxy, nearest_stranger

IDENTITY = (b"0123456789abcdef0123456789abcdef", b"fedcba9876543210")


def fields(*lines: bytes) -> list[Field]:
    return [FieldParser()(line) for line in lines]


def told(*lines: bytes, peer: str = "10.0.0.1") -> tuple[dict[str, str], str, str]:
    out, request_id, ip = from_proxy(
        Client(peer, "https", True), b"h", fields(*lines), lambda ip: ip.startswith("10."), IDENTITY
    )
    return dict(line.decode().split(": ", 1) for line in out), request_id.decode(), ip


def test_a_stranger_is_described_by_us_alone() -> None:
    assert Client("192.0.2.1", "https", False).introduce(b"h:443").split(b"\r\n") == [
        b"X-Forwarded-For: 192.0.2.1", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: h:443",
        b'Forwarded: for=192.0.2.1;proto=https;host="h:443"',
    ]  # fmt: skip


def test_ipv6_is_quoted_in_forwarded() -> None:
    assert b'Forwarded: for="[2001:db8::1]";proto=http;host=h' in Client("2001:db8::1", "http", False).introduce(b"h")


def test_another_host_on_the_same_connection_gets_its_own_lines() -> None:
    client = Client("192.0.2.1", "http", False)
    assert b"Host: a" in client.introduce(b"a")
    assert b"Host: b" in client.introduce(b"b")
    assert b"Host: a" in client.introduce(b"a")


def test_ids_are_random_and_their_trace_context_is_whole() -> None:
    identities = Identities(random.Random(1).randbytes)
    drawn = [(identities.ready or identities.more()).pop() for _ in range(2 * ID_BLOCK + 1)]
    assert len({request_id for request_id, _ in drawn}) == len(drawn)
    for request_id, span in (drawn[0], drawn[-1]):
        assert (len(request_id), len(span)) == (32, 16)
        assert (ID_LINES % (request_id, request_id, span)).split(b"\r\n") == [
            b"X-Request-Id: " + request_id, b"traceparent: 00-%b-%b-01" % (request_id, span),
        ]  # fmt: skip


def test_a_trusted_proxys_word_is_extended() -> None:
    lines, request_id, ip = told(
        b"X-Forwarded-For: 192.0.2.9, 10.1.1.1", b"X-Forwarded-Proto: http", b"X-Forwarded-Host: outer",
        b"Forwarded: for=192.0.2.9", b"X-Request-Id: their-id", b"X-Forwarded-Port: 80",
        b"traceparent: 00-11111111111111111111111111111111-2222222222222222-00", b"tracestate: a=b",
    )  # fmt: skip
    assert lines["X-Forwarded-For"] == "192.0.2.9, 10.1.1.1, 10.0.0.1"
    assert lines["X-Forwarded-Proto"] == "http"
    assert lines["X-Forwarded-Host"] == "outer"
    assert lines["Forwarded"] == "for=192.0.2.9, for=10.0.0.1;proto=https;host=h"
    assert lines["X-Request-Id"] == request_id == "their-id"
    assert lines["traceparent"] == "00-11111111111111111111111111111111-2222222222222222-00"
    assert lines["tracestate"] == "a=b"
    assert lines["x-forwarded-port"] == "80"
    assert ip == "192.0.2.9"


def test_what_a_trusted_proxy_garbles_is_replaced() -> None:
    lines, request_id, ip = told(
        b"X-Forwarded-Proto: gopher", b"X-Forwarded-Host: a b", b"X-Request-Id: x y", b"traceparent: 01-0-0-0",
        b"tracestate: a=b",
    )  # fmt: skip
    assert lines["X-Forwarded-Proto"] == "https"
    assert lines["X-Forwarded-Host"] == "h"
    assert request_id == lines["X-Request-Id"] == IDENTITY[0].decode()
    assert lines["traceparent"].startswith(f"00-{IDENTITY[0].decode()}-")
    assert "tracestate" not in lines
    assert ip == "10.0.0.1"


def test_the_client_is_the_nearest_address_that_is_no_proxy() -> None:
    def trusted(ip: str) -> bool:
        return ip.startswith("10.")

    assert nearest_stranger("10.0.0.1", [b"6.6.6.6", b"192.0.2.1", b"10.0.0.2"], trusted) == "192.0.2.1"
    assert nearest_stranger("10.0.0.1", [b"10.0.0.3", b"10.0.0.2"], trusted) == "10.0.0.3"
    assert nearest_stranger("10.0.0.1", [b"6.6.6.6", b"unknown", b"10.0.0.2"], trusted) == "10.0.0.2"
    assert nearest_stranger("10.0.0.1", [], trusted) == "10.0.0.1"
    assert nearest_stranger("10.0.0.1", [b"[2001:DB8::1]"], trusted) == "2001:db8::1"


NAMES = ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "X-Request-Id", "traceparent",
         "tracestate"]  # fmt: skip
VALUES = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
    st.sampled_from(
        ["10.0.0.2, 192.0.2.7", "[2001:db8::1]:443, 10.0.0.1", "unknown", "_hidden", "1.2.3.4:99999", "https"]
    ),
    st.integers(0, 255).map(lambda number: "a\t" + chr(number) if number > 31 and number != 127 else ""),
)


@given(st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=6))
def test_property_whatever_a_proxy_says_the_lines_are_whole(given_lines: list[tuple[str, str]]) -> None:
    parse, parsed = FieldParser(), []
    for name, value in given_lines:
        with suppress(PeerError):
            parsed.append(parse(f"{name}: {value}".encode("latin-1")))
    lines, request_id, ip = from_proxy(
        Client("10.0.0.1", "https", True), b"h", parsed, lambda ip: ip.startswith("10."), IDENTITY
    )
    assert all(b"\r" not in line and b"\n" not in line and b": " in line for line in lines)
    assert request_id
    assert ip_address(ip)
