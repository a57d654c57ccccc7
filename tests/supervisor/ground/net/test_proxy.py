"""PROXY v1 and v2 against the specification: its examples, every split, garbage, and that only ProxyError escapes."""

from __future__ import annotations

import ipaddress
import socket
import struct

import proxyprotocol.tlv
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from proxyprotocol.result import ProxyResultIPv4, ProxyResultIPv6
from proxyprotocol.v1 import ProxyProtocolV1
from proxyprotocol.v2 import ProxyProtocolV2

from supervisor.ground.net.proxy import (
    MAX_V1,
    MAX_V2,
    SIGNATURE,
    TLV_ALPN,
    TLV_AUTHORITY,
    TLV_UNIQUE_ID,
    ProxyError,
    ProxyHeader,
    decode,
    encode_v1,
    encode_v2,
    ssl_tlv,
)

REQUEST = b"GET / HTTP/1.1\r\nHost: 192.168.0.11\r\n\r\n"

ports = st.integers(0, 65535)
v4 = st.tuples(st.ip_addresses(v=4).map(str), ports)
v6 = st.tuples(
    st.ip_addresses(v=6).filter(lambda one: one.ipv4_mapped is None).map(str),  # type: ignore[union-attr]
    ports,
)
both = st.one_of(st.tuples(v4, v4), st.tuples(v6, v6))
tlvs = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=200)), max_size=5).map(tuple)


def v2(version_command: int, family: int, body: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", version_command, family, len(body) if length is None else length) + body


FOUR = b"\xc0\xa8\x00\x01\xc0\xa8\x00\x0b" + struct.pack("!HH", 56324, 443)
SIX = b"\x20\x01\x0d\xb8" + b"\0" * 11 + b"\1" + b"\x20\x01\x0d\xb8" + b"\0" * 11 + b"\2" + struct.pack("!HH", 1, 2)
IN_FOUR = ProxyHeader(("192.168.0.1", 56324), ("192.168.0.11", 443))
IN_SIX = ProxyHeader(("2001:db8::1", 1), ("2001:db8::2", 2))
OWN = ProxyHeader(None, None)

GOOD = {
    # The example of §2.1, and its longest lines.
    "v1 ipv4": (b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", IN_FOUR),
    "v1 longest ipv4": (
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        ProxyHeader(("255.255.255.255", 65535), ("255.255.255.255", 65535)),
    ),
    "v1 longest ipv6": (
        b"PROXY TCP6 " + b" ".join([b":".join([b"ffff"] * 8)] * 2) + b" 65535 65535\r\n",
        ProxyHeader((":".join(["ffff"] * 8), 65535), (":".join(["ffff"] * 8), 65535)),
    ),
    "v1 ipv6 in capitals": (b"PROXY TCP6 2001:DB8::1 2001:db8:0:0:0:0:0:2 1 2\r\n", IN_SIX),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", OWN),
    "v1 longest unknown": (
        b"PROXY UNKNOWN " + b" ".join([b":".join([b"ffff"] * 8)] * 2) + b" 65535 65535\r\n",
        OWN,
    ),
    "v1 unknown with anything": (b"PROXY UNKNOWN \xff\n\r \x00 whatever\r\n", OWN),
    "v2 local": (v2(0x20, 0x00, b""), OWN),
    "v2 local with addresses": (v2(0x20, 0x11, FOUR), OWN),
    "v2 local with any family": (v2(0x20, 0xFF, b"anything"), OWN),
    "v2 unspecified": (v2(0x21, 0x00, b""), OWN),
    "v2 unspecified with bytes": (v2(0x21, 0x00, b"x" * 20), OWN),
    "v2 ipv4 of no protocol": (v2(0x21, 0x10, FOUR), OWN),
    "v2 tcp ipv4": (v2(0x21, 0x11, FOUR), IN_FOUR),
    "v2 udp ipv4": (v2(0x21, 0x12, FOUR), IN_FOUR),
    "v2 tcp ipv6": (v2(0x21, 0x21, SIX), IN_SIX),
    "v2 udp ipv6": (v2(0x21, 0x22, SIX), IN_SIX),
    "v2 unix stream": (v2(0x21, 0x31, b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")), OWN),
    "v2 unix datagram": (v2(0x21, 0x32, bytes(216)), OWN),
    "v2 with tlvs": (
        v2(0x21, 0x11, FOUR + b"\x02\x00\x0bexample.com" + b"\x04\x00\x00" + b"\x01\x00\x02h2"),
        ProxyHeader(*[IN_FOUR.source, IN_FOUR.destination], ((2, b"example.com"), (4, b""), (1, b"h2"))),
    ),
    "v2 of the largest size": (
        v2(0x21, 0x11, FOUR + b"\x04" + struct.pack("!H", 4096 - 15) + bytes(4096 - 15)),
        ProxyHeader(IN_FOUR.source, IN_FOUR.destination, ((4, bytes(4096 - 15)),)),
    ),
}

BAD = {
    "nothing like it": REQUEST,
    "lower case": b"proxy TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
    "a tab": b"PROXY\tTCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
    "no space": b"PROXY\r\n",
    "empty": b"PROXY \r\n",
    "two spaces": b"PROXY  TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
    "two spaces later": b"PROXY TCP4 192.168.0.1  192.168.0.11 56324 443\r\n",
    "a space at the end": b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443 \r\n",
    "another protocol": b"PROXY UDP4 192.168.0.1 192.168.0.11 56324 443\r\n",
    "unknown and more": b"PROXY UNKNOWNX\r\n",
    "a word missing": b"PROXY TCP4 192.168.0.1 192.168.0.11 56324\r\n",
    "a word too many": b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443 1\r\n",
    "ipv6 as TCP4": b"PROXY TCP4 ::1 ::1 56324 443\r\n",
    "ipv4 as TCP6": b"PROXY TCP6 192.168.0.1 192.168.0.11 56324 443\r\n",
    "leading zero in an address": b"PROXY TCP4 192.168.0.01 192.168.0.11 56324 443\r\n",
    "three numbers": b"PROXY TCP4 192.168.1 192.168.0.11 56324 443\r\n",
    "a number over 255": b"PROXY TCP4 192.168.0.256 192.168.0.11 56324 443\r\n",
    "a name": b"PROXY TCP4 localhost 192.168.0.11 56324 443\r\n",
    "a zone": b"PROXY TCP6 fe80::1%eth0 ::1 56324 443\r\n",
    "two double colons": b"PROXY TCP6 1::2::3 ::1 56324 443\r\n",
    "port too large": b"PROXY TCP4 192.168.0.1 192.168.0.11 65536 443\r\n",
    "negative port": b"PROXY TCP4 192.168.0.1 192.168.0.11 -1 443\r\n",
    "signed port": b"PROXY TCP4 192.168.0.1 192.168.0.11 +1 443\r\n",
    "port with underscore": b"PROXY TCP4 192.168.0.1 192.168.0.11 1_0 443\r\n",
    "leading zero in a port": b"PROXY TCP4 192.168.0.1 192.168.0.11 056324 443\r\n",
    "port zero twice": b"PROXY TCP4 192.168.0.1 192.168.0.11 00 443\r\n",
    "port in other digits": "PROXY TCP4 192.168.0.1 192.168.0.11 ٣ 443\r\n".encode(),
    "empty port": b"PROXY TCP4 192.168.0.1 192.168.0.11  443\r\n",
    "a line feed alone": b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\n" + b"x" * 100,
    "a carriage return inside": b"PROXY TCP4 192.168.0.1 192.168.0.11 56324\r 443\r\n",
    "a null byte": b"PROXY TCP4 192.168.0.1\0 192.168.0.11 56324 443\r\n",
    "not ASCII": b"PROXY TCP4 192.168.0.\xff 192.168.0.11 56324 443\r\n",
    "over 107 bytes": b"PROXY UNKNOWN " + b"x" * (MAX_V1 - 15) + b"\r\n",
    "the line break over the limit": b"PROXY UNKNOWN " + b"x" * (MAX_V1 - 14 - 1) + b"\r\n",
    "v2 version 1": v2(0x11, 0x11, FOUR),
    "v2 version 3": v2(0x31, 0x11, FOUR),
    "v2 another command": v2(0x22, 0x11, FOUR),
    "v2 another family": v2(0x21, 0x41, FOUR),
    "v2 another transport": v2(0x21, 0x13, FOUR),
    "v2 unix of another transport": v2(0x21, 0x3F, bytes(216)),
    "v2 signature changed": b"\r\n\r\n\0\r\nQUIT\r" + struct.pack("!BBH", 0x21, 0x11, 12) + FOUR,
    "v2 ipv4 cut short": v2(0x21, 0x11, FOUR[:-1]),
    "v2 ipv6 cut short": v2(0x21, 0x21, SIX[:-1]),
    "v2 without addresses": v2(0x21, 0x11, b""),
    "v2 too long": v2(0x21, 0x11, FOUR, length=MAX_V2 - 16 + 1),
    "v2 local too long": v2(0x20, 0x00, b"", length=65535),
    "v2 tlv without length": v2(0x21, 0x11, FOUR + b"\x02\x00"),
    "v2 tlv cut short": v2(0x21, 0x11, FOUR + b"\x02\x00\x0bexample.co"),
    "v2 tlv into the data": v2(0x21, 0x11, FOUR + b"\x02\xff\xff") + bytes(65535),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_headers_whole_byte_by_byte_and_with_trailing_bytes(name: str) -> None:
    data, header = GOOD[name]
    assert decode(data) == (header, len(data))
    for end in range(len(data)):
        assert decode(data[:end]) is None, end
    for trailing in (REQUEST, b"\r\n", b"\0", data):
        assert decode(data + trailing) == (header, len(data))


@pytest.mark.parametrize("name", BAD)
def test_bad_headers_are_refused_whole_and_however_they_come(name: str) -> None:
    data = BAD[name]
    with pytest.raises(ProxyError):
        decode(data)
    refused = False
    for end in range(len(data) + 1):
        try:
            found = decode(data[:end])
        except ProxyError:
            refused = True
        else:
            assert found is None
            assert not refused, "what was refused once stays refused"
    assert refused


@pytest.mark.parametrize("prefix", [b"", b"P", b"PROXY", b"PROXY ", SIGNATURE[:1], SIGNATURE[:11], SIGNATURE])
def test_a_beginning_may_still_become_one(prefix: bytes) -> None:
    assert decode(prefix) is None


@pytest.mark.parametrize("first", [b"G", b"\x16", b"PR0XY ", b"\r\n\r\n\r", b"PROXYTCP4"])
def test_anything_else_is_refused_at_its_first_wrong_byte(first: bytes) -> None:
    with pytest.raises(ProxyError, match="no PROXY header"):
        decode(first)


def test_a_v1_line_without_its_end_is_refused_at_the_limit() -> None:
    endless = b"PROXY TCP6 " + b"f" * 200
    assert decode(endless[: MAX_V1 - 1]) is None
    with pytest.raises(ProxyError, match="107"):
        decode(endless[:MAX_V1])


@given(endpoints=both)
def test_property_v1_says_what_was_encoded(endpoints: tuple[tuple[str, int], tuple[str, int]]) -> None:
    data = encode_v1(*endpoints)
    assert len(data) <= MAX_V1
    found = decode(data + REQUEST)
    assert found is not None
    header, length = found
    assert length == len(data)
    assert header == ProxyHeader(*endpoints)


@given(endpoints=both, tlvs=tlvs, stream=st.booleans(), cut=st.integers(0, 2000))
def test_property_v2_says_what_was_encoded(
    endpoints: tuple[tuple[str, int], tuple[str, int]], tlvs: tuple[tuple[int, bytes], ...], stream: bool, cut: int
) -> None:
    kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
    data = encode_v2(*endpoints, kind=kind, tlvs=tlvs)
    assert decode(data + REQUEST) == (ProxyHeader(*endpoints, tlvs), len(data))
    if cut < len(data):
        assert decode(data[:cut]) is None
    assert data[13] & 15 == (1 if stream else 2)


def told(result: object) -> tuple[tuple[str, int], tuple[str, int]]:
    """The addresses that the other decoder found."""
    assert isinstance(result, ProxyResultIPv4 | ProxyResultIPv6)
    return (str(result.source[0]), result.source[1]), (str(result.dest[0]), result.dest[1])


@given(endpoints=both, tlvs=tlvs)
def test_property_another_decoder_reads_what_was_encoded(
    endpoints: tuple[tuple[str, int], tuple[str, int]], tlvs: tuple[tuple[int, bytes], ...]
) -> None:
    assert told(ProxyProtocolV1().unpack(encode_v1(*endpoints))) == endpoints
    sent = {what: value for what, value in tlvs if what != proxyprotocol.tlv.Type.PP2_TYPE_CRC32C}
    found = ProxyProtocolV2().unpack(encode_v2(*endpoints, tlvs=tuple(sent.items())))
    assert told(found) == endpoints
    assert dict(found.tlv) == sent


@given(endpoints=both, name=st.from_regex(r"[a-z]{1,9}\.example", fullmatch=True), unique=st.binary(max_size=128))
def test_property_what_another_encoder_wrote_is_read(
    endpoints: tuple[tuple[str, int], tuple[str, int]], name: str, unique: bytes
) -> None:
    kind = ProxyResultIPv6 if ":" in endpoints[0][0] else ProxyResultIPv4
    source, destination = ((ipaddress.ip_address(host), port) for host, port in endpoints)
    tlv = proxyprotocol.tlv.ProxyProtocolTLV(alpn=b"h2", authority=name, unique_id=unique)
    data = ProxyProtocolV2().pack(kind(source, destination, protocol=socket.SOCK_STREAM, tlv=tlv))  # type: ignore[arg-type]
    found = decode(data)
    assert found is not None
    header, size = found
    assert (header.source, header.destination, size) == (*endpoints, len(data))
    wanted = (TLV_ALPN, TLV_AUTHORITY, TLV_UNIQUE_ID)
    assert [header.tlv(what) for what in wanted] == [b"h2", name.encode(), unique]


def test_tls_that_was_ended_is_told_of() -> None:
    header = encode_v2(("192.0.2.1", 1), ("192.0.2.2", 2), tlvs=(ssl_tlv("TLSv1.3", "TLS_AES_256_GCM_SHA384"),))
    ssl = ProxyProtocolV2().unpack(header).tlv.ssl
    assert (ssl.has_ssl, ssl.has_cert_conn, ssl.verify) == (True, False, 1)
    assert (ssl.version, ssl.cipher) == ("TLSv1.3", "TLS_AES_256_GCM_SHA384")


@given(data=st.binary(max_size=200))
@example(data=b"")
def test_property_only_proxy_errors_come_of_garbage(data: bytes) -> None:
    try:
        found = decode(data)
    except ProxyError:
        return
    assert found is None or found[1] <= len(data)


@given(name=st.sampled_from(sorted(GOOD)), at=st.integers(0, 5000), byte=st.integers(0, 255))
def test_property_only_proxy_errors_come_of_a_changed_byte(name: str, at: int, byte: int) -> None:
    data = bytearray(GOOD[name][0])
    data[at % len(data)] = byte
    try:
        found = decode(bytes(data))
    except ProxyError:
        return
    if found is not None:
        header, length = found
        assert length <= len(data)
        for endpoint in (header.source, header.destination):
            if endpoint is not None:
                ipaddress.ip_address(endpoint[0])
                assert 0 <= endpoint[1] <= 65535


@given(body=st.binary(max_size=300), version_command=st.sampled_from([0x20, 0x21]), family=st.integers(0, 255))
def test_property_only_proxy_errors_come_of_any_v2_body(body: bytes, version_command: int, family: int) -> None:
    try:
        found = decode(v2(version_command, family, body))
    except ProxyError:
        return
    assert found is not None
    assert found[1] == 16 + len(body)


@given(line=st.binary(max_size=120))
def test_property_only_proxy_errors_come_of_any_v1_line(line: bytes) -> None:
    try:
        found = decode(b"PROXY TCP4 " + line + b"\r\n")
    except ProxyError:
        return
    assert found is None or found[0].source is not None


def test_without_addresses_v2_says_local() -> None:
    assert encode_v2(None, None) == v2(0x20, 0x00, b"")
    assert encode_v2(("192.168.0.1", 1), None)[12] == 0x20


def test_two_families_in_one_header() -> None:
    four, six = ("192.168.0.1", 1), ("2001:db8::1", 2)
    assert encode_v1(four, six) == b"PROXY UNKNOWN\r\n"
    for source, destination in ((four, six), (six, four)):
        data = encode_v2(source, destination)
        assert data[13] == 0x21
        assert decode(data) == (ProxyHeader(source, destination), len(data))


def test_addresses_of_a_dual_stack_socket_go_as_what_they_are() -> None:
    source, destination = ("::ffff:192.168.0.1", 56324), ("::ffff:192.168.0.11", 443)
    assert encode_v1(source, destination) == GOOD["v1 ipv4"][0]
    assert encode_v2(source, destination) == GOOD["v2 tcp ipv4"][0]


def test_mapped_addresses_come_as_what_they_are() -> None:
    """So that a limit by client address sees one client, however it was told of it."""
    line = b"PROXY TCP6 ::ffff:192.168.0.1 ::ffff:c0a8:b 56324 443\r\n"
    assert decode(line) == (IN_FOUR, len(line))
    mapped = b"\0" * 10 + b"\xff\xff"
    data = v2(0x21, 0x21, mapped + FOUR[:4] + mapped + FOUR[4:8] + FOUR[8:])
    assert decode(data) == (IN_FOUR, len(data))


def test_zones_of_link_local_addresses_stay_here() -> None:
    source, destination = ("fe80::1%eth0", 1), ("fe80::2%eth0", 2)
    expected = ProxyHeader(("fe80::1", 1), ("fe80::2", 2))
    for data in (encode_v1(source, destination), encode_v2(source, destination)):
        assert decode(data) == (expected, len(data))


def test_tlvs_are_found_by_kind() -> None:
    tlvs = ((TLV_AUTHORITY, b"example.com"), (TLV_ALPN, b"h2"), (TLV_UNIQUE_ID, b"1"), (TLV_UNIQUE_ID, b"2"))
    found = decode(encode_v2(("::1", 1), ("::1", 2), tlvs=tlvs))
    assert found is not None
    header = found[0]
    assert header.tlv(TLV_AUTHORITY) == b"example.com"
    assert header.tlv(TLV_ALPN) == b"h2"
    assert header.tlv(TLV_UNIQUE_ID) == b"1"
    assert header.tlv(0x20) is None
