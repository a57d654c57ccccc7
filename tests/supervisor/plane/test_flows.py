import os
import signal
import socket
from ipaddress import IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.plane import flows as flows_module
from supervisor.plane import layout
from supervisor.plane.flows import Flows
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane
from supervisor.plane.region import PlaneFullError
from tests.supervisor.plane.children import run_child, wait_child


def test_a_flow_comes_back_as_it_was_put(plane: Plane) -> None:
    segment = Flows(plane).segment(3, 1)
    assert segment.put("192.0.2.7", 50000, 12, 40001, 99)
    assert segment.put("2001:db8::7", 50000, 13, 40002, 98)
    assert segment.find("192.0.2.7", 50000) == ("192.0.2.7", 50000, 12, 40001, 99)
    assert segment.find("192.0.2.7", 50001) is None
    assert sorted(segment) == [("192.0.2.7", 50000, 12, 40001, 99), ("2001:db8::7", 50000, 13, 40002, 98)]
    assert len(segment) == 2


def test_an_address_comes_back_in_the_family_it_was_given_in(plane: Plane) -> None:
    segment = Flows(plane).segment(3, 1)
    segment.put("::ffff:192.0.2.7", 50000, 12, 40001, 99)
    assert [flow.host for flow in segment] == ["::ffff:192.0.2.7"]


def test_a_client_that_moves_keeps_one_row(plane: Plane) -> None:
    segment = Flows(plane).segment(0, 0)
    segment.put("192.0.2.7", 50000, 12, 40001, 1)
    segment.put("192.0.2.7", 50000, 13, 40002, 2)
    segment.touch("192.0.2.7", 50000, 3)
    assert list(segment) == [("192.0.2.7", 50000, 13, 40002, 3)]
    assert segment.remove("192.0.2.7", 50000)
    assert not segment.remove("192.0.2.7", 50000)
    assert list(segment) == []


def test_segments_of_listeners_and_slots_are_apart_and_found_again(plane: Plane) -> None:
    flows = Flows(plane)
    flows.segment(3, 1).put("192.0.2.7", 1, 12, 2, 99)
    for other in ((3, 0), (3, 2), (2, 1)):
        assert len(flows.segment(*other)) == 0
    assert len(Flows(plane).segment(3, 1)) == 1


def test_a_successor_finds_what_a_killed_owner_put(plane: Plane) -> None:
    progress = 500

    def work() -> int:
        segment = Flows(plane).segment(0, 0)
        port = 1
        while True:
            segment.put("192.0.2.7", port, 12, port, 1)
            if port > 50:
                segment.remove("192.0.2.7", port - 50)
            plane.cells[progress] = port
            port = port % 60000 + 1

    pid = run_child(work)
    while plane.cells[progress] < 2000:
        pass
    os.kill(pid, signal.SIGKILL)
    wait_child(pid)
    last = plane.cells[progress]
    found = {flow.port: flow.local_port for flow in Flows(plane).segment(0, 0)}
    assert all(port == local for port, local in found.items())
    assert set(range(last - 48, last + 1)) <= set(found)
    assert len(found) <= 52


def test_a_full_segment_says_so(plane: Plane) -> None:
    segment = Flows(plane).segment(0, 0)
    accepted = sum(segment.put("192.0.2.7", port, 1, 1, 1) for port in range(layout.FLOWS_PER_SEGMENT))
    assert accepted == flows_module.MAX_FILL
    assert segment.put("192.0.2.7", 5, 2, 2, 2)
    assert segment.find("192.0.2.7", layout.FLOWS_PER_SEGMENT - 1) is None


def test_segments_run_out_with_a_clear_error(plane: Plane) -> None:
    flows = Flows(plane)
    for number in range(layout.SEGMENTS):
        flows.segment(number // 64, number % 64)
    with pytest.raises(PlaneFullError, match="512 slots"):
        flows.segment(200, 0)


def test_releasing_a_listener_forgets_its_flows(plane: Plane) -> None:
    row = plane.allocate(Kind.LISTENER, "edge/game")
    other = plane.allocate(Kind.LISTENER, "edge/voice")
    flows = Flows(plane)
    flows.segment(row, 2).put("192.0.2.7", 1, 2, 3, 4)
    flows.segment(other, 2).put("192.0.2.7", 1, 2, 3, 4)
    plane.release(Kind.LISTENER, row)
    assert len(flows.segment(row, 2)) == 0
    assert len(flows.segment(other, 2)) == 1


def as_the_kernel_writes_it(address: IPv6Address) -> str:
    return socket.inet_ntop(socket.AF_INET6, address.packed)


CLIENTS = st.tuples(
    st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(as_the_kernel_writes_it)),
    st.one_of(st.integers(0, 65535), st.just(7)),
)


@settings(deadline=None)
@given(
    st.lists(CLIENTS, min_size=1, max_size=8, unique=True).flatmap(
        lambda clients: st.lists(st.tuples(st.sampled_from(clients), st.booleans(), st.integers(0, 2047)), max_size=80)
    )
)
def test_property_a_segment_agrees_with_a_dictionary(steps: list[tuple[tuple[str, int], bool, int]]) -> None:
    plane = Plane.create()
    try:
        segment = Flows(plane).segment(0, 0)
        model: dict[tuple[str, int], int] = {}
        for client, put, server in steps:
            if put:
                assert segment.put(*client, server, 9, 1)
                model[client] = server
            else:
                assert segment.remove(*client) is (model.pop(client, None) is not None)
            assert {(flow.host, flow.port): flow.server_row for flow in segment} == model
            assert len(segment) == len(model)
    finally:
        plane.close()


@given(st.lists(st.tuples(st.integers(1, 30), st.booleans()), max_size=120))
@settings(deadline=None)
def test_property_colliding_flows_are_found_behind_removed_ones(steps: list[tuple[int, bool]]) -> None:
    """Ports 1..30 of one client are put into neighbouring rows by a hash made constant."""
    plane = Plane.create()
    mix = flows_module._MIX
    flows_module._MIX = 0
    try:
        segment = Flows(plane).segment(0, 0)
        model: set[int] = set()
        for port, put in steps:
            if put:
                segment.put("192.0.2.7", port, 1, 1, 1)
                model.add(port)
            else:
                segment.remove("192.0.2.7", port)
                model.discard(port)
            assert {flow.port for flow in segment} == model
        assert all(segment.find("192.0.2.7", port) for port in model)
    finally:
        flows_module._MIX = mix
        plane.close()
