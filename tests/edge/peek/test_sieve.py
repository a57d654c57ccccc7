"""The first route whose conditions all hold takes a connection, however its bytes are cut."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.peek.hello import Hello, PeekError
from edge.peek.sieve import MAX_PEEKED, End, Sieve, Verdict, covers
from tests.edge.peek.hellos import alpn, message, openssl, records, server_name


@attrs.frozen
class Route:
    sni: str | None = None
    alpn: str | None = None
    detect: str | None = None


SHARED = Sieve(
    [
        Route(sni="db.example.com"),
        Route(sni="*.example.com", alpn="h2"),
        Route(sni="*.example.com"),
        Route(detect="ssh"),
        Route(detect="mysql"),
        Route(),
    ]
)
STRICT = Sieve([Route(sni="a.example"), Route(detect="http")])


def looked(sieve: Sieve, data: bytes, end: End | None = None, hello: Hello | None = None) -> int | Verdict:
    return sieve.look(data, end, hello)[0]


def hello(name: str, *protocols: bytes) -> bytes:
    return records(message(server_name(name.encode()), *([alpn(*protocols)] if protocols else [])))


@pytest.mark.parametrize(
    ("data", "number"),
    [
        (hello("db.example.com"), 0),
        (hello("DB.Example.Com", b"h2"), 0),
        (hello("api.example.com", b"http/1.1", b"h2"), 1),
        (hello("api.example.com"), 2),
        (hello("a.b.example.com"), 2),
        (hello("example.com"), 5),
        (openssl(None), 5),
        (b"SSH-2.0-x\r\n", 3),
        (b"GET / HTTP/1.1\r\n\r\n", 5),
    ],
)
def test_the_first_that_fits_takes_it(data: bytes, number: int) -> None:
    looks = [looked(SHARED, data[:cut]) for cut in range(len(data) + 1)]
    first = looks.index(number)
    assert looks == [Verdict.MORE] * first + [number] * (len(looks) - first)


def test_silence_is_a_server_that_speaks_first() -> None:
    assert looked(SHARED, b"") is Verdict.MORE
    assert looked(SHARED, b"", End.SILENCE) == 4
    assert looked(SHARED, b"", End.CLOSED) == 5
    assert looked(SHARED, b"S", End.SILENCE) == 5


def test_what_no_route_takes_is_nobodys() -> None:
    assert looked(STRICT, b"SSH-2.0-x\r\n") is Verdict.NOBODY
    assert looked(STRICT, hello("b.example")) is Verdict.NOBODY
    assert looked(STRICT, b"\x16\x03", End.SILENCE) is Verdict.NOBODY
    assert looked(STRICT, b"G", End.CLOSED) is Verdict.NOBODY
    assert looked(STRICT, b"") is Verdict.MORE


def test_a_broken_hello_is_refused_where_names_are_asked_for() -> None:
    broken = b"\x16\x03\x01\x00\x06\x01\x00\x00\x02ab"
    with pytest.raises(PeekError):
        looked(STRICT, broken)
    assert looked(Sieve([Route(detect="tls")]), broken) == 0


def test_tls_that_was_ended_brings_its_hello_along() -> None:
    ended = Hello("a.example", (b"h2",))
    assert looked(STRICT, b"", hello=ended) == 0
    assert looked(STRICT, b"GET / ", hello=Hello("b.example")) == 1


def test_a_verdict_comes_at_the_latest_with_16_kib() -> None:
    assert looked(Sieve([Route(detect="http"), Route()]), b"\x03" * MAX_PEEKED) == 1
    assert looked(Sieve([Route(detect="redis")]), b"\x16\x03" * MAX_PEEKED) is Verdict.NOBODY


@pytest.mark.parametrize(
    ("earlier", "later", "covered"),
    [
        (Route(), Route(sni="a"), True),
        (Route(), Route(detect="mysql"), True),
        (Route(sni="*.a.b"), Route(sni="c.a.b"), True),
        (Route(sni="*.a.b"), Route(sni="*.c.a.b"), True),
        (Route(sni="*.a.b"), Route(sni="a.b"), False),
        (Route(sni="c.a.b"), Route(sni="*.a.b"), False),
        (Route(sni="*.a.b", alpn="h2"), Route(sni="c.a.b"), False),
        (Route(sni="*.a.b"), Route(sni="c.a.b", alpn="h2"), True),
        (Route(detect="tls"), Route(sni="a"), True),
        (Route(sni="a"), Route(detect="tls"), False),
        (Route(detect="mysql"), Route(detect="smtp"), True),
        (Route(detect="ssh"), Route(detect="http"), False),
        (Route(detect="ssh"), Route(), False),
        (Route(sni="a"), Route(), False),
    ],
)
def test_a_route_below_one_that_takes_more_gets_nothing(earlier: Route, later: Route, covered: bool) -> None:
    assert covers(earlier, later) is covered


NAMES = st.sampled_from([None, "a.b", "c.a.b", "*.a.b", "d.c.a.b", "*.c.a.b"])
ROUTES = st.builds(Route, NAMES, st.sampled_from([None, "h2", "http/1.1"]), st.just(None)) | st.builds(
    Route, st.none(), st.none(), st.sampled_from([None, "tls", "http", "ssh", "redis", "mysql", "postgres"])
)
BYTES = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"SSH-2.0-x\r\n", b"GET / HTTP/1.1\r\n", b"*1\r\n$4\r\n", openssl(None)]),
    st.builds(hello, st.sampled_from(["a.b", "c.a.b", "d.c.a.b"]), st.sampled_from([b"h2", b"http/1.1"])),
)


@given(st.lists(ROUTES, max_size=6), BYTES, st.sampled_from(End))
def test_property_a_verdict_is_final_and_no_cut_changes_it(routes: list[Route], data: bytes, end: End) -> None:
    sieve = Sieve(routes)

    def look(seen: bytes, why: End | None) -> int | Verdict | str:
        try:
            return looked(sieve, seen, why)
        except PeekError:
            return "refused"

    whole = look(data, None)
    for cut in range(len(data)):
        assert look(data[:cut], None) in (Verdict.MORE, whole)
    assert look(data, end) is not Verdict.MORE
    for number, route in enumerate(routes):
        if any(covers(above, route) for above in routes[:number]):
            assert look(data, end) != number
