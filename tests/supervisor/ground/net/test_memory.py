"""The rehearsal: memory behaves like a socket, the clock like a clock, and one session runs on both."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from supervisor.ground.lane import Conn, Event, Lane, Overdue, Session, wait_any
from supervisor.ground.net.memory import MemoryConn, Rehearsal, Unsettled


@pytest.fixture
def lane() -> Rehearsal:
    return Rehearsal()


async def echo(conn: MemoryConn | Conn) -> None:
    try:
        while data := await conn.recv():
            await conn.send(data)
        conn.shutdown_write()
    finally:
        conn.close()


def test_what_one_end_sends_the_other_reads(lane: Rehearsal) -> None:
    near, far = lane.pair()
    lane.spawn(echo(far))
    lane.run()
    assert near.send_nowait(b"hello") == 5
    assert near.take() == b""
    lane.run()
    assert near.take() == b"hello"
    near.shutdown_write()
    lane.run()
    assert near.take() == b""
    assert near.at_end
    assert not lane.sessions


def test_the_other_end_learns_only_in_the_next_round(lane: Rehearsal) -> None:
    near, far = lane.pair()
    assert far.recv_nowait() is None
    near.send_nowait(b"x")
    assert far.recv_nowait() is None
    lane.run()
    assert far.recv_nowait() == b"x"


def test_a_full_buffer_takes_no_more_until_the_peer_has_read(lane: Rehearsal) -> None:
    near, far = lane.pair(capacity=10)
    assert near.send_nowait(b"0123456789abc") == 10
    assert not near.writable
    assert near.send_nowait(b"abc") == 0
    lane.run()
    assert not near.writable
    assert far.recv_nowait(4) == b"0123"
    lane.run()
    assert near.writable
    assert near.send_nowait(b"abc") == 3


def test_a_long_send_goes_as_fast_as_it_is_read(lane: Rehearsal) -> None:
    near, far = lane.pair(capacity=100)
    message = bytes(range(256)) * 20

    async def sender() -> None:
        await far.send(message)
        far.close()

    lane.spawn(sender())
    got = bytearray()
    for _ in range(200):
        lane.run()
        assert len(near._inbox) <= 100
        data = near.recv_nowait()
        if data == b"":
            break
        got += data or b""
    assert got == message
    assert not lane.sessions


def test_feed_gives_it_byte_by_byte(lane: Rehearsal) -> None:
    near, far = lane.pair()
    pieces: list[bytes] = []

    async def reader() -> None:
        while data := await far.recv():
            pieces.append(data)

    lane.spawn(reader())
    lane.feed(near, b"abc", piece=1)
    assert pieces == [b"a", b"b", b"c"]
    lane.finish()


def test_feeding_one_that_does_not_read_is_told(lane: Rehearsal) -> None:
    near, _far = lane.pair(capacity=2)
    with pytest.raises(Unsettled):
        lane.feed(near, b"abc")


def test_a_reset_comes_after_what_was_sent_before_it(lane: Rehearsal) -> None:
    near, far = lane.pair()
    far.send_nowait(b"last words")
    far.abort()
    lane.run()
    assert far.aborted
    assert near.recv_nowait() == b"last words"
    with pytest.raises(ConnectionResetError):
        near.recv_nowait()
    assert near.recv_nowait() == b""


def test_writing_to_one_that_has_closed_is_a_broken_pipe(lane: Rehearsal) -> None:
    near, far = lane.pair()
    far.close()
    far.close()
    with pytest.raises(BrokenPipeError):
        near.send_nowait(b"x")
    assert near.take() == b""


def test_closing_wakes_who_waits_for_it_with_an_oserror(lane: Rehearsal) -> None:
    near, far = lane.pair(capacity=3)
    seen: list[str] = []

    async def use(what: str) -> None:
        try:
            if what == "read":
                await near.recv()
            else:
                await far.send(b"abcdef")
        except OSError as error:
            seen.append(f"{what}: {error.strerror}")

    lane.spawn(use("read"))
    lane.run()
    near.close()
    lane.run()
    near, far = lane.pair(capacity=3)
    lane.spawn(use("write"))
    lane.run()
    far.close()
    lane.run()
    assert seen == ["read: Bad file descriptor", "write: Bad file descriptor"]
    assert far.recv_nowait() is None
    assert far.send_nowait(b"x") == 0


def test_an_idle_connection_calls_back_when_its_peer_closes(lane: Rehearsal) -> None:
    near, far = lane.pair()
    closed: list[MemoryConn] = []
    near.idle(closed.append)
    lane.run()
    assert closed == []
    far.close()
    lane.run()
    assert closed == [near]
    assert near.recv_nowait() == b""


def test_a_server_by_address_refuses_accepts_or_never_answers(lane: Rehearsal) -> None:
    lane.servers = {"up": echo, "silent": None}
    said: list[object] = []

    async def client(address: str) -> None:
        lane.current.expire_in(5)
        try:
            conn = await lane.connect(socket.AF_INET, address)
        except (OSError, Overdue) as error:
            said.append(type(error))
            return
        await conn.send(b"ping")
        said.append(await conn.recv())
        conn.close()

    for address in ("up", "down", "silent"):
        lane.spawn(client(address))
    lane.run()
    assert said == [ConnectionRefusedError, b"ping"]
    lane.advance(5)
    assert said[2:] == [Overdue]


def test_time_passes_only_when_the_test_says_so(lane: Rehearsal) -> None:
    woke: list[float] = []

    async def sleeper(seconds: float) -> None:
        await lane.sleep(seconds)
        woke.append(seconds)

    begun = lane.now, lane.wall
    for seconds in (3600.0, 0.5, 2.0):
        lane.spawn(sleeper(seconds))
    lane.run()
    assert woke == []
    lane.advance(0.5)
    assert woke == [0.5]
    lane.advance(3600)
    assert woke == [0.5, 2.0, 3600.0]
    assert lane.now - begun[0] == pytest.approx(3600.5)
    assert lane.wall - begun[1] == pytest.approx(3600.5)
    assert lane.now_ns == pytest.approx(lane.now * 1e9)


def test_a_crash_fails_the_run(lane: Rehearsal) -> None:
    async def crash() -> None:
        raise KeyError("missing")

    lane.spawn(crash())
    with pytest.raises(KeyError):
        lane.run()


def test_sessions_that_never_rest_are_told(lane: Rehearsal) -> None:
    async def spin() -> None:
        while True:
            await lane.pause()

    lane.spawn(spin(), "spinner")
    with pytest.raises(Unsettled, match="spinner"):
        lane.run()
    lane.finish()


def test_offload_by_hand_runs_at_once(lane: Rehearsal) -> None:
    said: list[int] = []

    async def slow(number: int) -> int:
        await trio.sleep(3600)
        return number + 1

    async def session() -> None:
        said.append(await lane.offload(slow, 1))

    lane.spawn(session())
    lane.run()
    assert said == [2]


def test_finish_ends_what_waits(lane: Rehearsal) -> None:
    ended: list[str] = []

    async def session() -> None:
        try:
            await Event(lane).wait()
        finally:
            ended.append("ended")

    lane.spawn(session())
    lane.run()
    lane.finish()
    assert ended == ["ended"]
    assert not lane.sessions


def test_under_trio_the_autojump_clock_makes_waiting_free(autojump_clock: trio.testing.MockClock) -> None:
    lane = Rehearsal()
    said: list[object] = []

    async def fetch() -> str:
        await trio.sleep(100)
        return "fetched"

    async def session(conn: MemoryConn) -> None:
        said.append(await lane.offload(fetch))
        await lane.sleep(1000)
        lane.current.expire_in(30)
        try:
            await conn.recv()
        except Overdue:
            said.append("overdue")
            await conn.send(b"bye")
            conn.close()

    near, far = lane.pair()

    async def client() -> None:
        said.append(await near.recv())

    lane.spawn(session(far))
    lane.spawn(client())

    async def main() -> None:
        before = trio.current_time()
        await lane.drive()
        assert 1130 <= trio.current_time() - before < 1132

    trio.run(main, clock=autojump_clock)
    assert said == ["fetched", "overdue", b"bye"]


def test_under_trio_cancelling_the_driver_ends_the_sessions(autojump_clock: trio.testing.MockClock) -> None:
    lane = Rehearsal()
    ended: list[Session] = []

    async def session() -> None:
        try:
            await lane.offload(trio.sleep_forever)
        finally:
            ended.append(lane.current)

    mine = lane.spawn(session())

    async def main() -> None:
        with trio.move_on_after(50):
            await lane.drive()

    trio.run(main, clock=autojump_clock)
    assert ended == [mine]


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


def test_the_same_session_runs_on_sockets(lane: Rehearsal) -> None:
    """One session, the one that swaps what two peers send, over memory and over the real lane."""

    async def swap(session_lane: Rehearsal | Lane, left: MemoryConn | Conn, right: MemoryConn | Conn) -> None:
        left.attach()
        right.attach()
        found: dict[str, bytes] = {}
        while len(found) < 2:
            for name, conn in (("left", left), ("right", right)):
                data = conn.recv_nowait()
                if data:
                    found[name] = data
            if len(found) < 2:
                await wait_any(left, right)
        await left.send(found["right"])
        await right.send(found["left"])
        left.close()
        right.close()

    (a, left), (b, right) = lane.pair(), lane.pair()
    lane.spawn(swap(lane, left, right))
    lane.feed(a, b"from a")
    lane.feed(b, b"from b")
    assert (a.take(), b.take()) == (b"from b", b"from a")

    async def main() -> None:
        (a, left), (b, right) = socket.socketpair(), socket.socketpair()
        real = Lane()
        async with trio.open_nursery() as nursery:
            await nursery.start(real.run)
            real.spawn(swap(real, real.adopt(left), real.adopt(right)))
            a.sendall(b"from a")
            b.sendall(b"from b")
            for sock, expected in ((a, b"from b"), (b, b"from a")):
                sock.setblocking(False)
                with trio.fail_after(5):
                    await trio.lowlevel.wait_readable(sock)
                assert sock.recv(100) == expected
                sock.close()
            nursery.cancel_scope.cancel()
        real.close()

    trio.run(main)
