"""Each protocol is told by its first bytes, never taken for another, and never told differently by more bytes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.peek.protocols import DETECTORS
from tests.edge.peek.hellos import openssl


def startup(code: int, body: bytes = b"user\0app\0\0") -> bytes:
    return struct.pack("!II", 8 + len(body), code) + body


SAMPLES: dict[str, list[bytes]] = {
    "tls": [openssl("a.example")],
    "http": [
        b"GET / HTTP/1.1\r\n", b"POST /a HTTP/1.1\r\n", b"OPTIONS * HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\n", b"GET https://a/ HTTP/1.1\r\n", b"CONNECT a:443 HTTP/1.1\r\n",
        b"PROPFIND /dav HTTP/1.1\r\n",
    ],
    "postgres": [
        startup(196608), startup(196610), startup(80877103, b""), startup(80877104, b""), startup(80877102, bytes(8)),
        startup(80877102, bytes(260)),
    ],
    "ssh": [b"SSH-2.0-OpenSSH_9.2\r\n", b"SSH-1.99-x\r\n"],
    "redis": [b"*1\r\n$4\r\nPING\r\n", b"*10\r\n$3\r\nSET\r\n", b"PING\r\n", b"ping\r\n"],
    "rtmp": [b"\x03" + bytes(1536), b"\x03\0\0\0\0\x09\0\x7c\x02" + bytes(range(256)) * 6],
    "amqp": [b"AMQP\0\0\x09\x01", b"AMQP\x03\x01\0\0"],
}  # fmt: skip
NOTHING = [
    b"GET key\r\n", b"get / HTTP/1.1\r\n", b"GETS /", b"\x03\0\0\x13\x0e\xe0" + b"x" * 12 + b"\r\n", b"*\r\n$",
    b"*0\r\n$", b"*12345678\r\n$", b"PINGS\r\n", b"\0\0\0\x08\0\0\0\x01", startup(80877103, b"x"), b"EHLO a\r\n",
    startup(196608, bytes(10_000)), b"\0\x01\0\0", b"SSL-", b"AMQX", b"\x16\x03\x01\x00\x10\x02",
    startup(80877102, b""), startup(80877102, bytes(261)),
]  # fmt: skip
CASES = [(name, data) for name, samples in SAMPLES.items() for data in samples]


@pytest.mark.parametrize(("name", "data"), CASES)
def test_each_is_told_from_all_others(name: str, data: bytes) -> None:
    assert [kind for kind, detector in DETECTORS.items() if detector(data)] == [name]


@pytest.mark.parametrize(("name", "data"), CASES)
def test_it_is_told_byte_by_byte_and_with_more_behind(name: str, data: bytes) -> None:
    told = [DETECTORS[name](data[:cut]) for cut in range(len(data) + 1)]
    first = told.index(True)
    assert told == [None] * first + [True] * (len(told) - first)
    assert DETECTORS[name](data + b"\0more")


@pytest.mark.parametrize("data", NOTHING)
def test_what_only_looks_like_one_is_none(data: bytes) -> None:
    assert not any(detector(data) for detector in DETECTORS.values())


@given(st.one_of(st.binary(max_size=40), st.sampled_from([data for _, data in CASES])), st.binary(max_size=8))
def test_property_more_bytes_never_change_what_was_told(start: bytes, more: bytes) -> None:
    data = start + more
    for detector in DETECTORS.values():
        whole = detector(data)
        assert all(detector(data[:cut]) in (None, whole) for cut in range(min(len(data), 48)))
    assert sum(bool(detector(data)) for detector in DETECTORS.values()) <= 1
