"""The admin's HTTP server: over memory streams and a clock of its own, and once over a real socket."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from supervisor.admin import server
from supervisor.admin.answers import answer
from supervisor.ground.config import Config
from supervisor.ground.orders import Held
from supervisor.ground.service import ServiceRuntime

MANY = 500  # answers that no socket's buffer holds
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def timed() -> None:
        with trio.fail_after(1000):
            await test()

    trio.run(timed, clock=trio.testing.MockClock(autojump_threshold=0))


async def exchange(worker: Any, *pieces: bytes, eof: bool = True) -> bytes:
    """All that comes back for these pieces, when the server is done with the connection."""
    ours, theirs = trio.testing.memory_stream_pair()
    received = bytearray()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            async with theirs:
                await server.serve(theirs, worker, lambda: server.Admin().view(worker), lambda change: None)

        nursery.start_soon(serve)
        for piece in pieces:
            await ours.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()
        if eof:
            await ours.send_eof()
        async for data in ours:
            received += data
    return bytes(received)


def test_a_request_is_answered(worker: Any) -> None:
    async def test() -> None:
        answer = await exchange(worker, REQUEST)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"content-length: 6" in head
        assert b"cache-control: no-store" in head
        assert body == b"ready\n"

    run(test)


def test_a_request_byte_by_byte_is_the_same(worker: Any) -> None:
    async def test() -> None:
        pieces = [REQUEST[at : at + 1] for at in range(len(REQUEST))]
        assert await exchange(worker, *pieces) == await exchange(worker, REQUEST)

    run(test)


def test_requests_follow_each_other_on_one_connection(worker: Any) -> None:
    async def test() -> None:
        assert (await exchange(worker, REQUEST * 3)).count(b"ready\n") == 3

    run(test)


def test_a_head_has_a_length_and_no_body(worker: Any) -> None:
    async def test() -> None:
        answer = await exchange(worker, REQUEST.replace(b"GET", b"HEAD"))
        assert b"content-length: 6" in answer
        assert answer.endswith(b"\r\n\r\n")

    run(test)


def test_a_body_is_not_read_and_ends_the_connection(worker: Any) -> None:
    async def test() -> None:
        request = b"POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc"
        answer = await exchange(worker, request, eof=False)
        assert answer.startswith(b"HTTP/1.1 405 ")
        assert b"connection: close" in answer

    run(test)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 9000, b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 90000, b"431"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
    ],
)
def test_what_is_no_request_is_refused(worker: Any, sent: bytes, status: bytes) -> None:
    async def test() -> None:
        answer = await exchange(worker, sent)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b"connection: close" in answer

    run(test)


@pytest.mark.parametrize("sent", [b"", b"GET /hea", REQUEST])
def test_silence_ends_the_connection_after_5_seconds(worker: Any, sent: bytes) -> None:
    async def test() -> None:
        start = trio.current_time()
        await exchange(worker, sent, eof=False)
        assert trio.current_time() - start == pytest.approx(server.PATIENCE)

    run(test)


def test_a_client_that_drips_does_not_last_longer(worker: Any) -> None:
    async def test() -> None:
        ours, theirs = trio.testing.memory_stream_pair()

        async def drip() -> None:
            while True:
                await ours.send_all(b"G")
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            start = trio.current_time()
            await server.serve(theirs, worker, lambda: server.Admin().view(worker), lambda change: None)
            assert trio.current_time() - start == pytest.approx(server.PATIENCE)
            nursery.cancel_scope.cancel()

    run(test)


def test_a_client_that_does_not_read_is_let_go(worker: Any) -> None:
    async def test() -> None:
        ours, theirs = trio.testing.lockstep_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, theirs, worker, lambda: server.Admin().view(worker), lambda change: None)
            await ours.send_all(REQUEST)
            start = trio.current_time()
        assert trio.current_time() - start == pytest.approx(server.PATIENCE)

    run(test)


def test_a_client_that_vanishes_is_no_error(worker: Any) -> None:
    async def test() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, theirs, worker, lambda: server.Admin().view(worker), lambda change: None)
            await trio.testing.wait_all_tasks_blocked()
            await theirs.aclose()
        await ours.aclose()

    run(test)


def test_a_fault_of_ours_is_500_and_in_the_log(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    worker.log = type("Log", (), {"exception": lambda self, event, **context: logged.append(event)})()
    monkeypatch.setattr(server, "answer", lambda *arguments: 1 / 0)

    async def test() -> None:
        assert (await exchange(worker, REQUEST)).startswith(b"HTTP/1.1 500 ")

    run(test)
    assert logged == ["admin failed to answer"]


@pytest.fixture
def inherited(worker: Any, tmp_path: Path) -> Iterator[str]:
    """The path of the listening socket that the worker inherited."""
    path = str(tmp_path / "admin.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        worker.inherited = listener
        yield path


def test_a_reload_does_not_cut_a_scrape_under_way(worker: Any, inherited: str, config: Config) -> None:
    service = ServiceRuntime(worker, server.Admin())

    async def test() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.run)
            async with await trio.open_unix_socket(inherited) as stream:
                await stream.send_all(REQUEST[:10])
                await trio.testing.wait_all_tasks_blocked()
                worker.config = attrs.evolve(config, supervisor=attrs.evolve(config.supervisor, pop="new"))
                service.commit(service.prepare(worker.config))
                await trio.testing.wait_all_tasks_blocked()
                await stream.send_all(REQUEST[10:])
                with trio.fail_after(10):
                    assert (await stream.receive_some()).endswith(b"ready\n")
                await stream.send_all(REQUEST.replace(b"healthz", b"status"))
                with trio.fail_after(10):
                    assert b'"pop": "new"' in await stream.receive_some()
            service.close()

    trio.run(test)


def test_a_drain_lets_an_answer_under_way_come_to_its_end(worker: Any, inherited: str) -> None:
    """While another, which has the same socket, accepts."""
    admin = server.Admin()
    service = ServiceRuntime(worker, admin)

    async def test() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.run)
            async with await trio.open_unix_socket(inherited) as stream:
                await stream.send_all(REQUEST.replace(b"healthz", b"status") * MANY)
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert service.holding() == ["admin: 1 requests"], "its client reads nothing yet"
                service.drain()
                async with await trio.open_unix_socket(inherited):
                    await trio.testing.wait_all_tasks_blocked(0.05)
                    assert select.select([worker.inherited], [], [], 0)[0], "a successor's to accept"
                received = b""
                with trio.fail_after(60):
                    while received.count(b"HTTP/1.1 200 ") < MANY or not received.endswith(b"}\n"):
                        received += await stream.receive_some()
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert service.holding() == []
            service.close()

    trio.run(test)


def test_what_holds_a_drain_up_is_shown_for_as_long_as_it_is_told(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(server.time, "monotonic", lambda: now[0])
    admin = server.Admin()
    admin.receive(Held("web 2/2", 7, 3, ("x", "y")))
    admin.receive(Held("web 1/2", 6, 1, ("z",)))
    admin.receive("something else")
    assert admin.view(worker).holding == [
        {"process": "web 1/2", "pid": 6, "left": 1, "holding": ["z"]},
        {"process": "web 2/2", "pid": 7, "left": 3, "holding": ["x", "y"]},
    ]
    now[0] += 2.0
    admin.receive(Held("web 2/2", 7, 2, ("x",)))
    now[0] += 2.0
    page = answer(b"GET", b"/status", admin.view(worker))
    assert json.loads(page.body)["holding"] == [{"process": "web 2/2", "pid": 7, "left": 2, "holding": ["x"]}]


def test_connections_above_the_bound_wait_for_one_to_end(
    worker: Any, inherited: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)

    async def test() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.Admin().run, worker)
            held = [await trio.open_unix_socket(inherited) for _ in range(2)]
            await trio.testing.wait_all_tasks_blocked()
            async with held[1], await trio.open_unix_socket(inherited) as third:
                await third.send_all(REQUEST)
                await trio.testing.wait_all_tasks_blocked()
                assert select.select([third.socket.fileno()], [], [], 0)[0] == []
                await held[0].aclose()
                with trio.fail_after(10):
                    assert (await third.receive_some()).startswith(b"HTTP/1.1 200 ")
            nursery.cancel_scope.cancel()

    trio.run(test)
