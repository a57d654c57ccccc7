"""The guard over the corpus, three ways, and the law that ties it to h11."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import guard, memo
from gateway.errors import PeerError
from gateway.fields import CHUNKED, CLOSE, CONTINUE, KEEP_ALIVE, NAMED, OLD, TRAILERS, WANTS_UPGRADE, WEBSOCKET
from gateway.guard import Guard, Judged, RequestLine
from tests.gateway.corpus import INVALID, VALID, Invalid, Valid, wire


def framing(judged: Judged) -> int | str:
    _, _, flags, length, *_ = judged
    return "chunked" if flags & CHUNKED else length if length >= 0 else "none"


def keeps_alive(judged: Judged) -> bool:
    flags = judged[2]
    if flags & CLOSE:
        return False
    return not flags & OLD or bool(flags & KEEP_ALIVE)


def read(data: bytes) -> tuple[RequestLine, Judged, int]:
    found = Guard().read(data)
    assert found is not None
    return found


def byte_by_byte(data: bytes) -> tuple[RequestLine, Judged, int]:
    judge = Guard()
    for end in range(1, len(data) + 1):
        # Long paddings differ in nothing but their length.
        if len(data) > 600 and 300 < end < len(data) - 300 and end % 997:
            continue
        found = judge.read(data[:end])
        if found is not None:
            return found
    raise AssertionError("the head never ended")


@pytest.mark.parametrize("case", VALID, ids=lambda case: case.name)
@pytest.mark.parametrize("tail", [b"", b"GET /next HTTP/1.1\r\n", b"\x00garbage"])
def test_valid_heads_are_read_whole_and_with_trailing_bytes(case: Valid, tail: bytes) -> None:
    line, judged, size = read(case.head + tail)
    assert (line.method, line.target) == (case.method, case.target)
    assert framing(judged) == case.framing
    assert keeps_alive(judged) == case.keep_alive
    assert size == len(case.head)


@pytest.mark.parametrize("case", VALID, ids=lambda case: case.name)
def test_valid_heads_are_read_byte_by_byte(case: Valid) -> None:
    line, judged, size = byte_by_byte(case.head)
    assert (line.method, line.target, framing(judged), size) == (
        case.method, case.target, case.framing, len(case.head),
    )  # fmt: skip


@pytest.mark.parametrize("case", INVALID, ids=lambda case: case.name)
@pytest.mark.parametrize("tail", [b"", b"GET /next HTTP/1.1\r\n", b"\x00garbage"])
def test_invalid_heads_are_refused_with_their_reason(case: Invalid, tail: bytes) -> None:
    with pytest.raises(PeerError) as refusal:
        read(case.head + tail)
    assert refusal.value.code == case.code
    assert refusal.value.close


@pytest.mark.parametrize("case", INVALID, ids=lambda case: case.name)
def test_invalid_heads_are_refused_byte_by_byte(case: Invalid) -> None:
    with pytest.raises(PeerError):
        byte_by_byte(case.head)


@pytest.mark.parametrize("case", INVALID, ids=lambda case: case.name)
def test_a_refusal_is_not_remembered_as_an_acceptance(case: Invalid) -> None:
    judge = Guard()
    for _ in range(2):
        with pytest.raises(PeerError):
            judge.read(case.head)


def oracle(data: bytes) -> h11.Request:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=guard.MAX_HEAD)
    connection.receive_data(data)
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    return event


def assert_same_meaning(head: bytes) -> None:
    """What h11 makes of a head that the guard accepted."""
    line, judged, size = read(head)
    request = oracle(head[:size])
    assert request.method == line.method.encode()
    assert request.target == line.target
    assert (request.http_version == b"1.0") == line.old
    theirs = dict(request.headers)
    assert judged[4] == theirs.get(b"host")
    if judged[3] >= 0:
        assert int(theirs[b"content-length"]) == judged[3]
    else:
        assert b"content-length" not in theirs
    assert (theirs.get(b"transfer-encoding") == b"chunked") == bool(judged[2] & CHUNKED)
    options = [option.strip() for name, value in request.headers if name == b"connection"
               for option in value.lower().split(b",")]  # fmt: skip
    assert (b"close" in options) == bool(judged[2] & CLOSE)
    # Every line that goes on is one that h11 saw, name and value alike, in its order; but what we say ourselves.
    ours = 2 if judged[2] & TRAILERS else 0
    out = judged[1][: len(judged[1]) - ours]
    assert judged[1][len(out) :] == [b"TE: trailers", b"Connection: TE"][:ours]
    lines = [(name.lower(), value) for name, value in request.headers.raw_items()]
    position = 0
    for forwarded in out[1:]:
        name, _, value = forwarded.partition(b": ")
        entry = (name.lower(), b"%d" % judged[3] if name.lower() == b"content-length" else value)
        candidates = [(n, b"%d" % int(v) if n == b"content-length" else v) for n, v in lines[position:]]
        assert entry in candidates
        position += candidates.index(entry) + 1


@pytest.mark.parametrize("case", VALID, ids=lambda case: case.name)
def test_h11_agrees_on_the_valid_heads(case: Valid) -> None:
    assert_same_meaning(case.head)
    assert_same_meaning(case.head + b"GET /next HTTP/1.1\r\nHost: b\r\n\r\n")


names = st.sampled_from([
    "Host", "host", "Content-Length", "content-length", "Content_Length", "Transfer-Encoding", "Connection", "Upgrade",
    "Expect", "Authorization", "X-Forwarded-For", "Cookie", "X-User-Id", "x_user.id", "X-Other", "Accept",
    "Content-Length ", " Content-Length", "", "X\x00", "Transfer-Encoding\x0b", "TE", "Forwarded",
])  # fmt: skip
values = st.one_of(
    st.sampled_from([
        "a", "0", "5", "+5", "05", "5, 5", "chunked", "Chunked", "chunked, chunked", "identity", "close", "keep-alive",
        "Upgrade, close", "websocket", "h2c", "100-continue", "example.com:80", "[::1]", "Bearer x.y.z", "trailers", "",
        " ", "\t5 ",
        "1\x00", "1\x0b", "x\r\n y", "x\ny", "\xe9", "x, host", "1\x85",
    ]),
    st.text(st.characters(max_codepoint=255), max_size=12),
)  # fmt: skip
line_ends = st.sampled_from(["\r\n"] * 30 + ["\n", "\r", "\r\r\n", "\r\n\t", "\n\r\n"])
request_lines = st.one_of(
    st.sampled_from(["GET / HTTP/1.1"] * 6 + ["POST /a?b=c HTTP/1.1", "GET / HTTP/1.0", "OPTIONS * HTTP/1.1"]),
    st.builds(
        "{} {} {}".format,
        st.sampled_from(["GET", "POST", "GE T", "G\x00T", "", "M-SEARCH"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=10),
        st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/1.1 ", "http/1.1", "HTTP/01.1"]),
    ),
)  # fmt: skip
separators = st.sampled_from([": "] * 10 + [":", ":\t", " : ", ":  ", ""])


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    parts = [draw(request_lines), draw(line_ends)]
    if draw(st.integers(0, 9)):
        parts += ["Host: a", "\r\n"]
    for _ in range(draw(st.integers(0, 5))):
        parts += [draw(names), draw(separators), draw(values), draw(line_ends)]
    parts.append(draw(line_ends))
    return "".join(parts).encode("latin-1")


@given(heads())
def test_property_whatever_the_guard_accepts_h11_accepts_with_the_same_meaning(head: bytes) -> None:
    try:
        found = Guard().read(head)
    except PeerError:
        return
    if found is not None:
        assert_same_meaning(head)


@given(heads())
def test_property_segments_do_not_change_what_is_accepted(head: bytes) -> None:
    try:
        whole = Guard().read(head)
    except PeerError:
        whole = None
    judge = Guard()
    pieces = None
    try:
        for end in range(1, len(head) + 1):
            pieces = judge.read(head[:end])
            if pieces is not None:
                break
    except PeerError:
        assert whole is None
        return
    assert (pieces is None) == (whole is None)
    if pieces is not None and whole is not None:
        assert pieces[0] == whole[0]
        assert pieces[1][:5] == whole[1][:5]


@given(st.binary(max_size=400))
def test_property_only_peer_errors_escape(data: bytes) -> None:
    judge = Guard()
    line = b"GET / HTTP/1.1\r\n"
    for piece in (data, line + data + b"\r\n\r\n", line + b"Host: a\r\n" + data + b"\r\n\r\n"):
        try:
            judge.read(piece)
        except PeerError:
            continue


@given(st.lists(heads(), max_size=8))
def test_property_what_was_seen_before_does_not_change_the_outcome(seen: list[bytes]) -> None:
    shared = Guard()
    for name in (b"X-Other", b"Accept", b"Cookie"):  # of these no more values are remembered
        for number in range(memo.MAX_VALUES + 1):
            assert shared.fields[b"%b: %d" % (name, number)]
    for head in [*seen, *seen]:
        outcomes = []
        for judge in (shared, Guard()):
            try:
                found = judge.read(head)
                outcomes.append(None if found is None else (found[0], found[1][:5], found[2]))
            except PeerError as error:
                outcomes.append(error.code)
        assert outcomes[0] == outcomes[1]


def test_fields_named_by_connection_are_dropped_but_never_host_or_length() -> None:
    _, judged, _ = read(wire("POST / HTTP/1.1\nHost: a\nContent-Length: 3\nX-Drop: 1\nX-Keep: 2\n"
                             "Connection: x-drop, host, content-length"))  # fmt: skip
    assert judged[2] & NAMED
    assert judged[6] is not None
    assert guard.without_named(judged[1], judged[6])[1:] == [b"Host: a", b"Content-Length: 3", b"X-Keep: 2"]


def test_hop_by_hop_fields_go_no_further() -> None:
    _, judged, _ = read(wire("GET / HTTP/1.1\nHost: a\nConnection: keep-alive\nKeep-Alive: 5\nTE: trailers\n"
                             "Proxy-Connection: x\nUpgrade: h2c\nHTTP2-Settings: x\nX: 1"))  # fmt: skip
    assert judged[1][1:] == [b"Host: a", b"X: 1", b"TE: trailers", b"Connection: TE"]  # the last two are ours
    assert not judged[2] & WEBSOCKET


def test_an_upgrade_to_websocket_is_noticed() -> None:
    _, judged, _ = read(wire("GET / HTTP/1.1\nHost: a\nConnection: keep-alive, Upgrade\nUpgrade: WebSocket"))
    assert judged[2] & WEBSOCKET
    assert judged[2] & WANTS_UPGRADE


def test_old_clients_are_not_told_to_continue() -> None:
    _, judged, _ = read(wire("PUT / HTTP/1.0\nContent-Length: 1\nExpect: 100-continue"))
    assert not judged[2] & CONTINUE


def test_values_leave_without_the_blanks_around_them() -> None:
    _, judged, _ = read(wire("GET / HTTP/1.1\nHost:a\nX-A:\t 1 2\t \nx-b:"))
    assert judged[1][1:] == [b"Host: a", b"X-A: 1 2", b"x-b: "]


@pytest.mark.parametrize(
    ("start", "code"),
    [
        (b"\x16\x03\x01", "bad_request_line"),
        (b"GET / HTTP/1.1\n", "bad_request_line"),
        (b"GET / HTTP/1.1\r\nHost: a\n", "bad_field"),
        (b"GET / HTTP/3.0\r\n", "bad_version"),
        (b"GET /" + b"a" * 9000, "target_too_long"),
        (b"A" * 9000, "bad_request_line"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 33000, "head_too_large"),
    ],
)
def test_what_can_never_become_a_head_is_refused_at_once(start: bytes, code: str) -> None:
    with pytest.raises(PeerError) as refusal:
        guard.find_end(start)
    assert refusal.value.code == code
