"""Which requests are well-formed, and what HTTP/1.1 would call them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import PeerError
from gateway.guard import Guard
from gateway.http2.errors import PROTOCOL_ERROR, StreamFault
from gateway.http2.fields import entry
from gateway.http2.heads import MAX_KNOWN, Head, HeadReader, request_head, trailer_lines
from tests.gateway.http2.wire import GET, POST

CONNECT = [(b":method", b"CONNECT"), (b":authority", b"a:443")]


def read(fields: list[tuple[bytes, bytes]]) -> Head:
    return request_head([entry(name, value) for name, value in fields])[1]


def line(fields: list[tuple[bytes, bytes]]) -> bytes:
    return request_head([entry(name, value) for name, value in fields])[0]


def test_a_request_becomes_a_request_line_and_header_lines() -> None:
    head = read([*GET, (b"accept", b"*/*"), (b"content-length", b"003"), (b"te", b"trailers")])
    assert line(GET) == b"GET / HTTP/1.1"
    assert head.lines == [b"Host: a", b"accept: */*", b"content-length: 3", b"te: trailers"]
    assert head.length == 3
    assert head.refusal == ""


def test_cookie_crumbs_are_put_together() -> None:
    head = read([*GET, (b"cookie", b"a=1"), (b"accept", b"*/*"), (b"cookie", b"b=2"), (b"cookie", b"c=3")])
    assert head.lines == [b"Host: a", b"accept: */*", b"cookie: a=1; b=2; c=3"]


def test_host_stands_in_for_an_authority() -> None:
    assert read([GET[0], GET[1], GET[3], (b"host", b"b")]).lines == [b"Host: b"]
    assert read([*GET, (b"host", b"A")]).lines == [b"Host: a"]
    assert read([GET[0], GET[1], GET[3]]).lines == []  # the guard will say so


def test_special_targets() -> None:
    assert line([(b":method", b"OPTIONS"), *GET[1:3], (b":path", b"*")]) == b"OPTIONS * HTTP/1.1"
    assert line(CONNECT) == b"CONNECT a:443 HTTP/1.1"


def swap(number: int, name: bytes, value: bytes) -> list[tuple[bytes, bytes]]:
    return [*GET[:number], (name, value), *GET[number + 1 :]]


MALFORMED = {
    "no method": GET[1:],
    "no scheme": [GET[0], *GET[2:]],
    "no path": GET[:3],
    "empty path": swap(3, b":path", b""),
    "path without a slash": swap(3, b":path", b"a"),
    "path of another host": swap(3, b":path", b"http://b/"),
    "star for a GET": swap(3, b":path", b"*"),
    "path with a blank": swap(3, b":path", b"/a b"),
    "path with a line": swap(3, b":path", b"/ HTTP/1.1\r\nHost: b"),
    "method with a blank": swap(0, b":method", b"GET /x"),
    "empty method": swap(0, b":method", b""),
    "scheme of another protocol": swap(1, b":scheme", b"ftp"),
    "method twice": [GET[0], *GET],
    "path twice": [*GET, GET[3]],
    "authority twice": [*GET, GET[2]],
    "unknown pseudo-header": [*GET, (b":protocol", b"websocket")],
    "answer's pseudo-header": [*GET, (b":status", b"200")],
    "pseudo-header after a field": [*GET[:3], (b"a", b"b"), GET[3]],
    "pseudo-header after host": [*GET[:3], (b"host", b"a"), GET[3]],
    "host of another name": [*GET, (b"host", b"b")],
    "host twice": [*GET, (b"host", b"a"), (b"host", b"a")],
    "capitals": [*GET, (b"Accept", b"*/*")],
    "blank in a name": [*GET, (b"a b", b"c")],
    "colon in a name": [*GET, (b"a:b", b"c")],
    "line in a name": [*GET, (b"a\r\nb", b"c")],
    "empty name": [*GET, (b"", b"c")],
    "line in a value": [*GET, (b"a", b"b\r\nc: d")],
    "NUL in a value": [*GET, (b"a", b"b\0c")],
    "LF at the end of a value": [*GET, (b"a", b"b\n")],
    "blank before a value": [*GET, (b"a", b" b")],
    "tab after a value": [*GET, (b"a", b"b\t")],
    "connection": [*GET, (b"connection", b"close")],
    "proxy-connection": [*GET, (b"proxy-connection", b"close")],
    "keep-alive": [*GET, (b"keep-alive", b"1")],
    "transfer-encoding": [*POST, (b"transfer-encoding", b"chunked")],
    "upgrade": [*GET, (b"upgrade", b"websocket")],
    "te for more than trailers": [*GET, (b"te", b"gzip")],
    "length twice": [*GET, (b"content-length", b"1"), (b"content-length", b"1")],
    "length with a sign": [*GET, (b"content-length", b"+1")],
    "length of a list": [*GET, (b"content-length", b"1, 1")],
    "empty length": [*GET, (b"content-length", b"")],
    "length beyond reason": [*GET, (b"content-length", b"1" * 16)],
    "CONNECT with a path": [*CONNECT, (b":path", b"/")],
    "CONNECT with a scheme": [*CONNECT, (b":scheme", b"https")],
    "CONNECT of nothing": CONNECT[:1],
}


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_requests_are_faults(fields: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(StreamFault) as caught:
        read(fields)
    assert caught.value.number == PROTOCOL_ERROR


def test_too_many_fields_have_an_answer() -> None:
    assert read([*GET, *[(b"a", b"b")] * 99]).refusal == ""
    assert read([*GET, *[(b"a", b"b")] * 100]).refusal == "too_many_fields"
    assert read([*GET, *[(b"cookie", b"b")] * 100]).refusal == "too_many_fields"


def test_too_large_a_head_has_an_answer() -> None:
    assert read([*GET, (b"a", b"b" * 32_000)]).refusal == ""
    assert read([*GET, (b"a", b"b" * 32_768)]).refusal == "head_too_large"
    assert read([*GET, *[(b"cookie", b"c" * 4000)] * 20]).refusal == "head_too_large"


def test_trailers_are_fields_and_nothing_else() -> None:
    assert trailer_lines([entry(b"x-sum", b"1"), entry(b"content-length", b"1")]) == [b"x-sum: 1"]
    for name, value in ((b":path", b"/"), (b"connection", b"close"), (b"X-A", b"1")):
        with pytest.raises(StreamFault):
            trailer_lines([entry(name, value)])


# Entries as they stand in a decoder's tables: the same object for the same field.
TABLE = [
    entry(name, value)
    for name, value in [
        *GET, (b":method", b"OPTIONS"), (b":method", b"CONNECT"), (b":path", b"/b"), (b":path", b"*"), (b":path", b""),
        (b":path", b"/a b"), (b":path", b"/" + b"p" * 40_000), (b":path", b"x"), (b"accept", b"*/*"), (b"cookie", b"a"),
        (b"host", b"b"), (b"content-length", b"3"), (b"x", b"y" * 3000), (b"a b", b"c"),
    ]
]  # fmt: skip


@given(st.lists(st.one_of(
    st.tuples(st.just([0, 1, 2]), st.sampled_from([3, 6, 7, 8, 9, 10, 11]), st.lists(st.sampled_from(range(12, 17)))),
    st.tuples(st.lists(st.sampled_from(range(len(TABLE)))), st.just(3), st.lists(st.sampled_from(range(len(TABLE))))),
), max_size=20))  # fmt: skip
def test_property_what_was_read_before_does_not_change_a_head(
    requests: list[tuple[list[int], int, list[int]]],
) -> None:
    reader, guard = HeadReader(), Guard()
    for before, path, after in requests:
        entries = [TABLE[at] for at in (*before, path, *after)]
        outcomes = []
        for way in (reader.read, request_head):
            try:
                asked, head = way(list(entries))
                judged = head.judge(guard, asked)
                outcomes.append((asked, head.lines, head.length, head.size, head.refusal, judged))
            except (StreamFault, PeerError) as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]


def test_what_a_connection_remembers_is_bounded() -> None:
    reader = HeadReader()
    for number in range(1000):
        assert reader.read([*map(entry, *zip(*GET, strict=True)), entry(b"a", b"%d" % number)])[1].length == -1
    assert len(reader._known) <= MAX_KNOWN


def test_a_head_that_was_judged_may_be_changed_by_who_forwards_it() -> None:
    reader, guard = HeadReader(), Guard()
    for _ in range(2):
        asked, head = reader.read([*TABLE[:4], TABLE[12]])
        out = head.judge(guard, asked)[1]
        assert out[1:] == [b"Host: a", b"accept: */*"]
        out.append(b"X: y")
