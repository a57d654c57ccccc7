"""The first packet: a corpus of valid and invalid ones, each whole, byte by byte, with something behind it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooler import startup
from pooler.errors import PeerError
from pooler.startup import CancelRequest, First, GSSENCRequest, SSLRequest, Startup
from pooler.walsender import Replication

REPORTED = {"application_name", "client_encoding", "DateStyle", "TimeZone"}


def packet(code: int, body: bytes = b"") -> bytes:
    return (len(body) + 8).to_bytes(4, "big") + code.to_bytes(4, "big") + body


def parameters(*words: str) -> bytes:
    return b"".join(word.encode() + b"\0" for word in words) + b"\0"


V3 = 3 << 16
VALID: dict[str, tuple[bytes, First]] = {
    "startup": (packet(V3, parameters("user", "app", "database", "db")), Startup(0, "app", "db", {}, ())),
    "database is the user's": (packet(V3, parameters("user", "app")), Startup(0, "app", "app", {}, ())),
    "settings and options": (
        packet(V3, parameters("user", "app", "TimeZone", "UTC", "options", "-c DateStyle=ISO")),
        Startup(0, "app", "app", {"TimeZone": "UTC", "DateStyle": "ISO"}, ()),
    ),
    "3.2": (packet(V3 | 2, parameters("user", "app")), Startup(2, "app", "app", {}, ())),
    "3.9 with an option": (
        packet(V3 | 9, parameters("user", "app", "_pq_.x", "1")),
        Startup(9, "app", "app", {}, ("_pq_.x",)),
    ),
    "no replication": (packet(V3, parameters("user", "app", "replication", "false")), Startup(0, "app", "app", {}, ())),
    "logical replication": (
        packet(V3, parameters("user", "app", "replication", "database")),
        Startup(0, "app", "app", {}, (), Replication.LOGICAL),
    ),
    "physical replication": (
        packet(V3, parameters("user", "app", "database", "db", "replication", "On")),
        Startup(0, "app", "db", {}, (), Replication.PHYSICAL),
    ),
    "cancel": (packet(80877102, b"\0\0\0\x07abcd"), CancelRequest(7, b"abcd")),
    "long cancel": (packet(80877102, b"\0\0\0\x07" + b"k" * 256), CancelRequest(7, b"k" * 256)),
}
INVALID = {
    "too short": (7).to_bytes(4, "big"),
    "too long": (10_001).to_bytes(4, "big"),
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\0\x01",
    "protocol 2": packet(2 << 16, b"\0" * 288),
    "protocol 4": packet(4 << 16, parameters("user", "app")),
    "no user": packet(V3, b"\0"),
    "empty user": packet(V3, b"user\0\0\0"),
    "no terminator": packet(V3, b"user\0app\0"),
    "terminator too early": packet(V3, b"user\0app\0\0more\0"),
    "a name without a value": packet(V3, b"user\0app\0x\0\0"),
    "nothing at all": packet(V3),
    "no text": packet(V3, b"user\0\xff\0\0"),
    "replication of what": packet(V3, parameters("user", "app", "replication", "perhaps")),
    "half a boolean": packet(V3, parameters("user", "app", "replication", "o")),
    "a switch": packet(V3, parameters("user", "app", "options", "-B 64")),
    "an option without a value": packet(V3, parameters("user", "app", "options", "-c geqo")),
    "a switch at the end": packet(V3, parameters("user", "app", "options", "-c")),
    "cancel without a secret": packet(80877102, b"\0\0\0\x07"),
    "cancel with too much": packet(80877102, b"\0\0\0\x07" + b"k" * 257),
    "behind ssl": packet(80877103) + b"x",
    "behind gss": packet(80877104) + b"x",
    "ssl with a body": packet(80877103, b"body"),
}


@pytest.mark.parametrize(("data", "expected"), VALID.values(), ids=VALID)
@pytest.mark.parametrize("behind", [b"", b"Q\0\0\0\x05\0"])
def test_valid_whole_and_with_something_behind(data: bytes, expected: First, behind: bytes) -> None:
    buffer = bytearray(data + behind)
    assert startup.receive(buffer) == expected
    assert buffer == behind


@pytest.mark.parametrize(("data", "expected"), VALID.values(), ids=VALID)
def test_valid_byte_by_byte(data: bytes, expected: First) -> None:
    buffer = bytearray()
    for byte in data[:-1]:
        buffer.append(byte)
        assert startup.receive(buffer) is None
    buffer.append(data[-1])
    assert startup.receive(buffer) == expected


@pytest.mark.parametrize(("code", "kind"), [(80877103, SSLRequest), (80877104, GSSENCRequest)])
def test_encryption_requests(code: int, kind: type) -> None:
    buffer = bytearray(packet(code))
    assert isinstance(startup.receive(buffer), kind)
    assert not buffer


@pytest.mark.parametrize("data", INVALID.values(), ids=INVALID)
def test_invalid_is_a_peer_error(data: bytes) -> None:
    with pytest.raises(PeerError):
        startup.receive(bytearray(data))


def test_what_is_spoken_and_what_is_negotiated() -> None:
    asked = {minor: Startup(minor, "u", "d", {}, ()) for minor in (0, 1, 2, 3)}
    assert {minor: one.to_negotiate for minor, one in asked.items()} == {0: False, 1: False, 2: False, 3: True}
    assert [one.spoken & 0xFFFF for one in asked.values()] == [0, 1, 2, 2]
    assert Startup(0, "u", "d", {}, ("_pq_.x",)).to_negotiate


def test_options_as_postgres_splits_them() -> None:
    text = r"-c DateStyle=ISO,\ MDY --search-path=a\\b  -cTimeZone=UTC"
    assert startup.parse_options(text) == {"DateStyle": "ISO, MDY", "search_path": "a\\b", "TimeZone": "UTC"}
    assert startup.parse_options("  ") == {}


def test_settings_are_kept_under_the_names_that_are_reported() -> None:
    asked = {"timezone": "UTC", "Extra_Float_Digits": "2"}
    assert startup.admit(asked, REPORTED, {"extra_float_digits"}) == {"TimeZone": "UTC"}
    assert startup.admit({"Geqo": "off", "app.Tenant": "é"}, REPORTED, ()) == {"geqo": "off", "app.tenant": "é"}
    assert startup.admit({"application_name": "é\n"}, REPORTED, ()) == {"application_name": "??"}


@pytest.mark.parametrize("setting", [{"ge qo": "off"}, {"a;b": "x"}, {"TimeZone": "é"}, {"TimeZone": "a\tb"}])
def test_settings_that_cannot_be_kept_are_refused(setting: dict[str, str]) -> None:
    with pytest.raises(PeerError):
        startup.admit(setting, REPORTED, ())


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=100).map(lambda body: packet(V3, body))))
def test_property_only_peer_error_escapes(data: bytes) -> None:
    buffer = bytearray(data)
    try:
        while startup.receive(buffer) is not None:
            pass
    except PeerError:
        pass


@given(st.text(max_size=60))
def test_property_options_only_peer_error_escapes(text: str) -> None:
    try:
        startup.parse_options(text)
    except PeerError:
        pass
