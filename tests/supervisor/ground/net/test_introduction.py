"""A PROXY header is read as it arrives; what follows it is not lost."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.ground.net.introduction import introduced
from supervisor.ground.net.memory import MemoryConn, Rehearsal
from supervisor.ground.net.proxy import ProxyError, ProxyHeader, encode_v1, encode_v2

SOURCE, HERE = ("192.0.2.77", 4711), ("192.0.2.1", 443)


def read(data: bytes, piece: int) -> tuple[ProxyHeader, bytes]:
    """What comes of `data`, sent `piece` bytes at a time and then ended. Raises what the reader raises."""
    lane = Rehearsal()
    near, far = lane.pair()
    outcome: list[tuple[ProxyHeader, bytes] | Exception] = []

    async def session(conn: MemoryConn) -> None:
        try:
            outcome.append(await introduced(conn))
        except (OSError, ProxyError) as error:
            outcome.append(error)

    lane.spawn(session(near))
    for start in range(0, len(data), piece):
        far.send_nowait(data[start : start + piece])
        lane.run()
    far.close()
    lane.run()
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


@pytest.mark.parametrize("piece", [1, 7, 1000])
@pytest.mark.parametrize("header", [encode_v1(SOURCE, HERE), encode_v2(SOURCE, HERE, tlvs=((2, b"a.example"),))])
def test_the_header_is_read_however_it_is_split(header: bytes, piece: int) -> None:
    found, rest = read(header + b"hello", piece)
    assert (found.source, found.destination) == (SOURCE, HERE)
    assert b"hello".startswith(rest)


@pytest.mark.parametrize("piece", [1, 1000])
def test_anything_else_is_refused(piece: int) -> None:
    with pytest.raises(ProxyError):
        read(b"GET / HTTP/1.1\r\n", piece)


def test_an_end_within_the_header_is_an_end() -> None:
    with pytest.raises(ConnectionResetError):
        read(b"PROXY TCP4 ", 1000)


@given(st.one_of(st.binary(max_size=60), st.binary(max_size=40).map(lambda data: encode_v2(SOURCE, HERE)[:13] + data)),
       st.integers(1, 20))  # fmt: skip
def test_property_a_header_or_an_error_comes_of_any_bytes(data: bytes, piece: int) -> None:
    with suppress(OSError, ProxyError):
        read(data, piece)
