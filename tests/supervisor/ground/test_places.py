from __future__ import annotations

import socket

from hypothesis import given
from hypothesis import strategies as st

from supervisor.ground import places
from supervisor.plane.layout import ServerState


def cells() -> memoryview:
    return memoryview(bytearray(64 * 8)).cast("Q")


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str), st.integers(1, 65535))
def test_what_was_written_is_read(host: str, port: int) -> None:
    memory = cells()
    places.write(memory, 8, host, port)
    found = places.read(memory, 8)
    mapped = host.startswith("::ffff:")
    if host in ("::",):
        assert found is None
    elif not mapped:
        assert found == (socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port))


def test_never_found_and_lost_again_are_nowhere() -> None:
    memory = cells()
    assert places.read(memory, 8) is None
    places.write(memory, 8, "10.0.0.1", 80)
    places.write(memory, 8, "", 0)
    assert places.read(memory, 8) is None


def test_a_write_that_is_under_way_is_not_read() -> None:
    memory = cells()
    places.write(memory, 8, "10.0.0.1", 80)
    memory[8 + ServerState.RESOLVED] += 1
    assert places.read(memory, 8) is None
    places.write(memory, 8, "10.0.0.2", 80)  # the successor of a writer that died in the middle
    assert places.read(memory, 8) == (socket.AF_INET, ("10.0.0.2", 80))
